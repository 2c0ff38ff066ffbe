package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/kvqbook/kvqbook/internal/cli"
	"github.com/kvqbook/kvqbook/internal/filesys"
	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama/calibration"
	"github.com/kvqbook/kvqbook/llama/fit"
	"github.com/kvqbook/kvqbook/tokenizer"
)

func init() { register(newCalibrate) }

// calibrateFlags are those of calibrate.
type calibrateFlags struct {
	model cli.ModelFlags
	texts textFiles
}

func newCalibrate() *cobra.Command {
	var f calibrateFlags
	c := &cobra.Command{
		Use:   "calibrate",
		Short: "Measure a model's queries on your texts, so that keys are rounded by what matters to them",
		Long: `calibrate lets the model read texts in full precision and measures how its queries lie: for each layer and key/value head the
mean of their products. It writes that to a small file beside the model, NAME` + calibration.Suffix + `, which --feedback-key calibrated uses
from then on. Some thousand tokens of texts like those to come are enough. Texts are read in pieces of 2,048 tokens.`,
		Example: `  kvq calibrate --text mine.txt
  kvq calibrate --text README.md --text CONTRIBUTING.md
  kvq evaluate --preset lowest --feedback-key calibrated`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return f.run(c) },
	}
	fs := c.Flags()
	f.model.Register(fs)
	f.model.RegisterDevices(fs)
	fs.Lookup(cli.CalibrationFlag).Usage = "`file` to write (default: the model's path with " + calibration.Suffix + " behind it)"
	fs.StringArrayVar(&f.texts.paths, "text", nil, "`file` with a text to read, - for standard input; repeat it for more")
	return c
}

func (f *calibrateFlags) run(c *cobra.Command) error {
	ctx, errs := c.Context(), c.ErrOrStderr()
	if len(f.texts.paths) == 0 {
		return usererr.New("no text to calibrate with: name files with --text, such as what you ask the model about")
	}
	files, err := f.model.Open(c)
	if err != nil {
		return err
	}
	tok, err := files.Tokenizer()
	if err != nil {
		return err
	}
	var texts [][]tokenizer.Token
	var names []string
	for _, path := range f.texts.paths {
		text, err := f.texts.text(c.InOrStdin(), path)
		if err != nil {
			return err
		}
		ids := tok.Encode(text)
		if len(ids) == 0 {
			return usererr.New("--text %s is empty, want text to calibrate with", path)
		}
		digest := sha256.Sum256([]byte(text))
		texts, names = append(texts, ids), append(names, hex.EncodeToString(digest[:]))
	}
	path := f.model.Calibration
	if path == "" {
		path = calibration.Path(files.Path())
	}
	if err := filesys.CanWrite(path); err != nil {
		return usererr.New("--%s %w", cli.CalibrationFlag, err)
	}
	status := f.model.Status(errs)
	defer status.Close()
	longest := 0
	for _, t := range texts {
		longest = max(longest, len(t))
	}
	request := fit.Request{Model: files.Config(), Cache: kvq.Config{}, Batch: 1, Prompt: min(longest, calibration.PieceTokens, files.Config().MaxPositions), NewTokens: 1}
	model, err := f.model.Load(ctx, files, errs, request)
	if err != nil {
		return err
	}
	defer model.Close(ctx)
	status.Stage("calibrating")
	q, err := model.Calibrate(ctx, texts, func(done, total int) { status.Detail("%d of %d tokens", done, total) })
	status.Clear()
	if err != nil {
		return err
	}
	q.Texts = names
	if err := calibration.Write(path, q); err != nil {
		return fmt.Errorf("writing the calibration: %w", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	fmt.Fprintf(c.OutOrStdout(), "calibrated on %s tokens: %s, %s\n", humanize.Comma(int64(q.Tokens)), path, cli.InUnits(info.Size()))
	return nil
}
