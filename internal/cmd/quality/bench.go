package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"

	"github.com/kvqbook/kvqbook/device"
	"github.com/kvqbook/kvqbook/internal/asset"
	"github.com/kvqbook/kvqbook/internal/passkey"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// bench measures rows on one model and device.
type bench struct {
	model    *llama.Model
	tok      *tokenizer.Tokenizer
	full     *llama.Generator // compiled once for all rows
	texts    []text
	trials   map[int][]passkey.Trial // by length
	keyBatch int
	base     key // model, device and version
	store    *store
	log      io.Writer
	judge    *judgement // nil without --judge

	calibrationTexts string // --calibrate
	calibration      string // the file that is made of them

	path    string
	files   *llama.Files
	backend compute.Backend
}

// newBench reads the tokenizer of the model; its weights are not read yet.
func newBench(o options, results *store) (*bench, error) {
	b := &bench{keyBatch: o.keyBatch, trials: map[int][]passkey.Trial{}, store: results, log: os.Stderr, path: o.model,
		calibrationTexts: o.calibrate, calibration: placeForCalibration()}
	var err error
	if b.path == "" {
		if b.path, err = asset.SmallModel(); err != nil {
			return nil, err
		}
	}
	if b.files, err = llama.Open(b.path); err != nil {
		return nil, err
	}
	b.tok, err = b.files.Tokenizer()
	return b, err
}

// open opens the device, which the rows are known by.
func (b *bench) open(o options) error {
	var err error
	if b.backend, err = device.Open(o.backend); err != nil {
		return err
	}
	info := device.Describe(b.backend)
	b.base = key{Model: filepath.Base(b.path), Device: info.String(), Version: version}
	if info.GPU() && len(info.Devices) > 0 {
		b.base.Device += ", " + info.Devices[0]
	}
	return nil
}

// load loads the model, to measure so many rows of all.
func (b *bench) load(ctx context.Context, missing, all int) error {
	fmt.Fprintf(b.log, "%d of %d rows to measure on %s\n", missing, all, b.base.Device)
	var err error
	// Rounded as the goldens' weights were, so that the rows for quanto and hqq can be compared
	// with theirs.
	options := llama.LoadOptions{DType: dtypes.Float32, RoundFloat16: true, Context: ctx, Calibration: b.calibration}
	if b.model, err = b.files.Load(b.backend, options); err != nil {
		return err
	}
	b.full, err = llama.NewGenerator(b.model, kvq.Config{})
	return err
}
