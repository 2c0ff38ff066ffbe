package main

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/gomlx/compute/dtypes"
	"golang.org/x/sync/errgroup"

	"github.com/kvqbook/kvqbook/internal/cli"
	"github.com/kvqbook/kvqbook/internal/passkey"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama"
	"github.com/kvqbook/kvqbook/llama/evaluate"
)

// key is what the result of a job will be known by.
func (b *bench) key(j job) (key, error) {
	k := b.base
	config, err := json.Marshal(j.step.config)
	if err != nil {
		return k, err
	}
	var rows [][]int32
	if j.part != "" {
		rows = b.judge.rows(j)
	} else if j.length > 0 {
		for _, t := range b.trials[j.length] {
			rows = append(rows, t.Text, t.Tail)
		}
	} else {
		rows = b.rows()
	}
	k.Config, k.Texts = string(config), hashOf(rows...)
	return k, nil
}

func (b *bench) rows() [][]int32 {
	var rows [][]int32
	for _, t := range b.texts {
		rows = append(rows, t.ids)
	}
	return rows
}

// missing leaves out what the store has.
func (b *bench) missing(jobs []job) ([]job, error) {
	var left []job
	for _, j := range jobs {
		k, err := b.key(j)
		if err != nil {
			return nil, err
		}
		if _, ok := b.store.find(k); !ok {
			left = append(left, j)
		}
	}
	return left, nil
}

// run measures rows, at most so many at a time, and stores each as soon as it is there. Rows of
// passkeys need much more memory than the others: fewer of them run at a time. A row that fails
// stops no other; the first failure is returned at the end.
func (b *bench) run(ctx context.Context, jobs []job, atOnce int) error {
	remove, err := b.calibrate(ctx, jobs)
	if err != nil {
		return err
	}
	defer remove()
	var group errgroup.Group
	group.SetLimit(atOnce)
	large := make(chan struct{}, max(1, atOnce/3))
	var talk sync.Mutex // for done and log
	start, done := time.Now(), 0
	alive := time.NewTicker(20 * time.Second)
	defer alive.Stop()
	over := make(chan struct{})
	defer close(over)
	go func() {
		for {
			select {
			case <-over:
				return
			case <-alive.C:
				talk.Lock()
				fmt.Fprintf(b.log, "%d of %d rows done after %.0f s\n", done, len(jobs), time.Since(start).Seconds())
				talk.Unlock()
			}
		}
	}()
	for _, j := range jobs {
		group.Go(func() error {
			if j.large() {
				large <- struct{}{}
				defer func() { <-large }()
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			r, err := b.measure(ctx, j)
			if err != nil {
				err = fmt.Errorf("%s: %w", j.name(), err)
			} else {
				err = b.store.add(r)
			}
			talk.Lock()
			defer talk.Unlock()
			if err != nil {
				fmt.Fprintln(b.log, err)
				return err
			}
			done++
			fmt.Fprintln(b.log, r)
			return nil
		})
	}
	return group.Wait()
}

func (b *bench) measure(ctx context.Context, j job) (result, error) {
	start := time.Now()
	k, err := b.key(j)
	if err != nil {
		return result{}, err
	}
	r := result{key: k, Name: j.name(), Date: start.UTC().Format("2006-01-02")}
	c := b.model.Config()
	// Scales in 16 bits, as they would be beside a 16-bit model, where the configuration leaves it
	// to the dtype of the cache.
	if r.Bits, err = bitsOf(j.step.config, kvq.Shape{Layers: c.Layers, Batch: 1, KVHeads: c.KVHeads, HeadDim: c.HeadDim, Capacity: 8192, DType: dtypes.Float16}); err != nil {
		return r, err
	}
	g, err := llama.NewGenerator(b.model, j.step.config)
	if err != nil {
		return r, err
	}
	defer func() {
		if ctx.Err() == nil { // else calls that nobody waits for may be under way
			g.Finalize()
		}
	}()
	if j.part != "" {
		err = b.measureJudged(ctx, g, j, &r)
	} else if j.length > 0 {
		err = b.findKeys(ctx, g, b.trials[j.length], j.length, &r)
	} else {
		err = b.score(ctx, g, &r)
	}
	r.Seconds = time.Since(start).Seconds()
	return r, err
}

// bitsOf is what a coded value costs in a cache of one row, with what feedback keeps for a row.
func bitsOf(config kvq.Config, shape kvq.Shape) (float64, error) {
	plan, err := kvq.New(config, shape)
	if err != nil {
		return 0, err
	}
	return plan.BitsPerValueIn(cli.RowTokens), nil
}

func (b *bench) score(ctx context.Context, g *llama.Generator, r *result) error {
	e, err := evaluate.Score(ctx, g, b.rows(), evaluate.Options{Reference: b.full, Prefill: prefill})
	if err != nil {
		return err
	}
	for i, t := range b.texts {
		s := e.Rows[i]
		r.Scores = append(r.Scores, textScore{Set: t.set, Text: t.name, Tokens: len(s.NLL), NLL: s.MeanNLL(), FullNLL: e.Reference[i].MeanNLL(),
			KL: s.MeanKL(), Same: s.Agreement()})
	}
	r.Compile = e.Timing.Compile.Seconds()
	return nil
}

func (b *bench) findKeys(ctx context.Context, g *llama.Generator, trials []passkey.Trial, length int, r *result) error {
	found, compile, err := passkey.Measure(ctx, g, trials, b.keyBatch)
	if err != nil {
		return err
	}
	r.Compile = compile.Seconds()
	r.Keys = &keyScore{Length: length, Trials: len(trials), Found: passkey.Count(trials, found)}
	for i, t := range trials {
		r.Keys.Tokens += t.Last
		r.Keys.Right += found[i]
	}
	return nil
}

// String is what a person who waits is told.
func (r result) String() string {
	text := fmt.Sprintf("%-36s %.3f bits  %4.0f s (%.0f compiling)", r.Name, r.Bits, r.Seconds, r.Compile)
	if r.Judged != nil {
		return text + "  " + r.Judged.String()
	}
	if r.Keys != nil {
		return text + fmt.Sprintf("  %d of %d keys", r.Keys.Found, r.Keys.Trials)
	}
	for _, set := range []string{setGolden, setUnseen} {
		if m := mean(r.Scores, set); m.tokens > 0 {
			text += fmt.Sprintf("  %s: perplexity %.3f (full %.3f) KL %.5f top-1 %.1f %%", set, m.perplexity, m.full, m.kl, 100*m.same)
		}
	}
	return text
}
