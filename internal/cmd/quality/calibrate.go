package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/llama/calibration"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// calibrationTexts are what rows of calibrated feedback know queries from: files of this repository
// that no row is judged by. --calibrate names others.
const calibrationTexts = "README.md,CONTRIBUTING.md,docs/design.md,kvq/cache.go,kvq/config.go"

// tokensPerCalibration are those of each file that are read.
const tokensPerCalibration = 4096

// calibrate measures the model's queries, where a job wants to know of them, and writes them to the
// file that generators read. remove removes it.
func (b *bench) calibrate(ctx context.Context, jobs []job) (remove func(), err error) {
	remove = func() {}
	if !slices.ContainsFunc(jobs, func(j job) bool { return j.step.config.FeedbackKey.NeedsCalibration() }) {
		return remove, nil
	}
	var texts [][]tokenizer.Token
	total := 0
	for path := range strings.SplitSeq(b.calibrationTexts, ",") {
		data, err := os.ReadFile(path)
		if err != nil {
			return remove, usererr.New("--calibrate: %w", err)
		}
		ids := b.tok.Encode(string(data))
		texts = append(texts, ids[:min(len(ids), tokensPerCalibration)])
		total += len(texts[len(texts)-1])
	}
	fmt.Fprintf(b.log, "calibrating with %d tokens of %s\n", total, b.calibrationTexts)
	q, err := b.model.Calibrate(ctx, texts, nil)
	if err != nil {
		return remove, err
	}
	return func() { _ = os.Remove(b.calibration) }, calibration.Write(b.calibration, q)
}

// placeForCalibration is where a calibration will be.
func placeForCalibration() string {
	return filepath.Join(os.TempDir(), fmt.Sprintf("quality-%d%s", os.Getpid(), calibration.Suffix))
}
