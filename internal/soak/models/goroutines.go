package models

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/kvqbook/kvqbook/internal/soak"
	"github.com/kvqbook/kvqbook/llama"
	"github.com/kvqbook/kvqbook/tokenizer"
)

var goroutines = soak.Part{
	Name: "goroutines",
	Promise: "Goroutines that generate at the same time, with their own generators or shared ones, get what they get alone; " +
		"cancelled ones get the beginning of it; all goroutines end.",
	Test: "`TestConcurrentGenerations`, `TestCancelKeepsTheTextSoFar` in `llama`; `TestQuick/goroutines` in `internal/soak/models`",
	Run:  runGoroutines,
}

// job is a generation with a known end.
type job struct {
	cache int
	batch tokenizer.Batch
	gc    llama.GenerateConfig
	want  [][]tokenizer.Token
}

// crowd is a model, its caches, and jobs with what each of them gives alone.
type crowd struct {
	model  *llama.Model
	caches []named
	shared []*llama.Generator
	ends   []func()
	jobs   []job
}

// The time that a wave of goroutines takes at most, and how many go at once.
const (
	waveTime  = 20 * time.Second
	atOnce    = 8
	ownShare  = 4 // of so many goroutines one has a generator of its own, which has to be compiled
	settleFor = 5 * time.Second
)

func runGoroutines(ctx context.Context, s *soak.Sitting) error {
	span := soak.Span{Quick: 2 * time.Second, Full: 30 * time.Minute}
	const stage = "generations"
	if s.Kept(stage) == "" {
		list, own := some("full", "tutorial", "int8-float8", "balanced"), ownShare
		if s.Quick {
			list, own = some("quanto-2"), atOnce
		}
		before := runtime.NumGoroutine()
		c, err := newCrowd(ctx, s, list)
		if err != nil {
			return err
		}
		random := s.Random()
		for s.Within(stage, span) {
			c.wave(ctx, s, stage, random, own, min(waveTime, s.Left(stage, span)))
		}
		c.end()
		if left, more := settled(before); more > 0 {
			s.Fail([]byte(left), "%d goroutines more than at the start are left", more)
		}
		if ctx.Err() == nil {
			s.Keep(stage, "done")
			if s.Tried(stage) == 0 {
				return errors.New("no generation came to its end")
			}
		}
	}
	if ctx.Err() != nil || s.Quick {
		return nil
	}
	return underRace(ctx, s)
}

// newCrowd generates each job alone. A job is as short as a text can be that crosses a window.
func newCrowd(ctx context.Context, s *soak.Sitting, list []named) (*crowd, error) {
	m, err := tiny(512)
	if err != nil {
		return nil, err
	}
	c := &crowd{model: m, caches: list}
	for i, one := range list {
		g, end, err := generatorOf(s, m, one)
		if err != nil {
			return nil, err
		}
		c.shared, c.ends = append(c.shared, g), append(c.ends, end)
		for seed := range 6 {
			s.Doing("%s alone, text %d", one.name, seed)
			j := job{cache: i, batch: prompts(m.Config().VocabSize, uint64(seed), 3+7*seed%13, 16), gc: greedy(40 + 15*seed%48)}
			j.gc.BlockSize = []int{0, 1, 7}[seed%3]
			if seed%2 == 1 && !s.Quick { // has graphs of its own
				j.gc.DoSample, j.gc.Temperature, j.gc.TopP, j.gc.Seed = true, 1.2, 0.9, int64(seed)
			}
			result, err := g.Generate(ctx, j.batch, j.gc)
			if err != nil {
				return nil, err
			}
			j.want = result.Tokens
			c.jobs = append(c.jobs, j)
		}
	}
	return c, nil
}

func (c *crowd) end() {
	for _, end := range c.ends {
		end()
	}
}

// wave has goroutines generate until the time is over. One of ownShare has a generator of its own.
func (c *crowd) wave(ctx context.Context, s *soak.Sitting, stage string, random *rand.Rand, ownShare int, limit time.Duration) {
	end := time.Now().Add(limit)
	var all sync.WaitGroup
	for i := range atOnce {
		seed := random.Uint64()
		all.Go(func() {
			random := rand.New(rand.NewPCG(seed, uint64(i)))
			var own *llama.Generator
			cache := random.IntN(len(c.caches))
			if i%ownShare == 0 {
				g, err := llama.NewGenerator(c.model, c.caches[cache].config)
				if err != nil {
					s.Fail(nil, "%s: %v", c.caches[cache].name, err)
					return
				}
				own = g
				defer own.Finalize()
			}
			for time.Now().Before(end) && ctx.Err() == nil {
				j := c.jobs[random.IntN(len(c.jobs))]
				g := c.shared[j.cache]
				if own != nil {
					for j.cache != cache {
						j = c.jobs[random.IntN(len(c.jobs))]
					}
					g = own
				}
				if c.generate(ctx, s, g, j, random) {
					s.Try(stage)
				}
			}
		})
	}
	all.Wait()
}

// generate runs a job, half of the time to its end, else cancelled or broken off at a random
// moment, and compares. It reports whether the job was tried, which it was not if the sitting
// ended.
func (c *crowd) generate(ctx context.Context, s *soak.Sitting, g *llama.Generator, j job, random *rand.Rand) bool {
	own, cancel := context.WithCancel(ctx)
	defer cancel()
	blocks := -1 // to the end
	switch random.IntN(4) {
	case 0:
		timer := time.AfterFunc(time.Duration(random.IntN(60_000))*time.Microsecond, cancel)
		defer timer.Stop()
	case 1:
		blocks = 1 + random.IntN(4)
	}
	var result *llama.Result
	var err error
	for block, e := range g.Stream(own, j.batch, j.gc) {
		result, err = block.Result, e
		if blocks--; blocks == 0 {
			break
		}
	}
	if ctx.Err() != nil {
		return false
	}
	name := c.caches[j.cache].name
	switch {
	case err != nil && !errors.Is(err, context.Canceled):
		s.Fail(nil, "%s beside others: %v", name, err)
	case result == nil: // cancelled before the prompt was in
		if err == nil {
			s.Fail(nil, "%s beside others: no result and no error", name)
		}
	case err == nil && blocks < 0 && !slices.EqualFunc(result.Tokens, j.want, slices.Equal):
		s.Fail(nil, "%s beside others: %v, alone %v", name, result.Tokens, j.want)
	default:
		for row, tokens := range result.Tokens {
			if want := j.want[row]; len(tokens) > len(want) || !slices.Equal(tokens, want[:len(tokens)]) {
				s.Fail(nil, "%s ended early: %v, alone %v", name, tokens, want)
			}
		}
	}
	return true
}

// settled waits until no more goroutines than before are left. It returns how many more there are,
// and their stacks.
func settled(before int) (stacks string, more int) {
	for end := time.Now().Add(settleFor); ; time.Sleep(20 * time.Millisecond) {
		runtime.GC()
		more = runtime.NumGoroutine() - before
		if more <= 0 {
			return "", 0
		}
		if time.Now().After(end) {
			buffer := make([]byte, 1<<20)
			return string(buffer[:runtime.Stack(buffer, true)]), more
		}
	}
}

// last is the end of a text.
func last(text []byte, n int) string {
	if len(text) > n {
		text = text[len(text)-n:]
	}
	return fmt.Sprintf("%s", text)
}
