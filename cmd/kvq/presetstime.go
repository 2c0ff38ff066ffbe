package main

import (
	"context"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/kvqbook/kvqbook/internal/bench"
	"github.com/kvqbook/kvqbook/internal/cli"
	"github.com/kvqbook/kvqbook/internal/engine"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama"
	"github.com/kvqbook/kvqbook/llama/fit"
)

// time times a step with each cache against full precision, and adds that to j.
func (f *presetsFlags) time(c *cobra.Command, files *llama.Files, j *presetsJSON, outcome *cli.Outcome) error {
	ctx, errs := c.Context(), c.ErrOrStderr()
	status := f.model.Status(errs)
	defer status.Close()
	var requests []fit.Request
	for _, p := range j.Presets {
		if p.Error == "" {
			requests = append(requests, fit.Request{Model: files.Config(), Cache: p.config, Beside: &kvq.Config{}, Batch: f.batch, Prompt: 1, Capacity: f.context + f.steps})
		}
	}
	model, err := f.model.Load(ctx, files, errs, requests...)
	if err != nil {
		return err
	}
	defer model.Close(ctx)
	full, err := f.timer(ctx, status, model.Model, kvq.Config{})
	if err != nil {
		return err
	}
	defer cli.Finalize(ctx, full.Finalize)
	_ = outcome.Update(func() error {
		j.Measured = &measuredSpeed{Device: model.Device, CPU: bench.CPU(), Batch: f.batch, Context: f.context, Runs: f.runs, Steps: f.steps}
		return nil
	})
	shortest := func(p *presetJSON, t bench.Times) {
		if ms := float64(t.Min()) / float64(time.Millisecond); p.Milli == 0 || ms < p.Milli {
			p.Milli = ms
		}
	}
	for i := range j.Presets {
		p := &j.Presets[i]
		if p.Error != "" || !p.config.Quantized() {
			continue
		}
		times, err := f.against(ctx, errs, status, model.Model, p, full)
		if err != nil {
			return err
		}
		_ = outcome.Update(func() error {
			faster := times[0].Faster(times[1])
			p.Faster = &faster
			shortest(p, times[0])
			for k := range j.Presets {
				if !j.Presets[k].config.Quantized() {
					shortest(&j.Presets[k], times[1])
				}
			}
			return nil
		})
	}
	return nil
}

// against times a preset and full precision, in alternation.
func (f *presetsFlags) against(ctx context.Context, errs io.Writer, status *cli.Status, model *llama.Model, p *presetJSON, full *cacheTimer) ([]bench.Times, error) {
	cli.NoteForm(errs, model, p.config)
	own, err := f.timer(ctx, status, model, p.config)
	if err != nil {
		return nil, err
	}
	defer cli.Finalize(ctx, own.Finalize)
	status.Stage("timing %s against full precision, %d runs each", p.Name, f.runs)
	return bench.Alternate(ctx, f.runs, own.Run, full.Run)
}

// cacheTimer times the steps of one cache.
type cacheTimer struct {
	engine.DecodeTimer
	generator *llama.Generator
}

func (f *presetsFlags) timer(ctx context.Context, status *cli.Status, model *llama.Model, config kvq.Config) (*cacheTimer, error) {
	g, err := llama.NewGenerator(model, config)
	if err != nil {
		return nil, err
	}
	t, err := engine.NewDecodeTimer(status.Context(ctx), g, f.batch, f.context, f.steps, false)
	if err != nil {
		return nil, err
	}
	return &cacheTimer{t, g}, nil
}

// Finalize frees what it compiled.
func (t *cacheTimer) Finalize() {
	t.DecodeTimer.Finalize()
	t.generator.Finalize()
}
