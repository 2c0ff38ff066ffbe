package models

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"github.com/kvqbook/kvqbook/internal/bench"
	"github.com/kvqbook/kvqbook/internal/filesys"
	"github.com/kvqbook/kvqbook/internal/soak"
	"github.com/kvqbook/kvqbook/llama"
)

var memory = soak.Part{
	Name:    "memory",
	Promise: "Memory stays flat, on the host and on the device, however many tokens a process makes ([plotted](reliability-memory.svg)).",
	Test:    "`TestQuick/memory` and `TestRule` in `internal/soak/models`",
	Run:     runMemory,
}

// ofTokens is the rule. A cache here takes over 1 KiB a token: one that were never freed would be
// 10 MiB in 10,000 tokens.
var ofTokens = rule{bytes: 2 * mib, slack: 4 * mib, per: 10000}

// memoryPicture is where the picture goes, relative to the clone.
const memoryPicture = "docs/reliability-memory.svg"

// rounds are the prompts of one stage: lengths of their rows, and new tokens. They come in turn.
var rounds = []struct {
	lengths []int
	tokens  int
}{{[]int{5, 16}, 60}, {[]int{40, 9}, 75}, {[]int{1, 12}, 90}, {[]int{48, 48}, 80}}

// memoryRun is one process's way through a number of tokens.
type memoryRun struct {
	Name    string   `json:"name"`
	Samples []sample `json:"samples"`
}

func runMemory(ctx context.Context, s *soak.Sitting) error {
	var done []memoryRun
	path := filepath.Join(s.Folder(), "runs.json")
	if data, err := os.ReadFile(path); err == nil {
		if err := json.Unmarshal(data, &done); err != nil {
			return err
		}
	}
	leak := 1 << 10
	if s.Quick {
		leak = 16 << 10
	}
	for _, one := range []struct {
		name   string
		open   func() (*llama.Model, error)
		caches []named
		tokens soak.Amount
		times  int // as many rows
		leak   int // bytes that the control keeps of each token
	}{
		{"tiny model", func() (*llama.Model, error) { return tiny(512) }, caches(), soak.Amount{Quick: 2500, Full: 100000}, 1, 0},
		{"control that keeps a little of each token", func() (*llama.Model, error) { return tiny(512) }, some("full", "balanced"), soak.Amount{Quick: 2500, Full: 20000}, 1, leak},
		{"SmolLM2-135M", small, some("full", "tutorial", "balanced"), soak.Amount{Quick: 0, Full: 60000}, 4, 0},
	} {
		list := one.caches
		if s.Quick {
			list = some("quanto-2")
		}
		// A run is of one process: what a stopped sitting did of it does not count.
		if finished(done, one.name) || !s.More(one.name, one.tokens) {
			continue
		}
		run, err := tokensOf(ctx, s, one.name, one.open, list, one.tokens, one.times, one.leak)
		if err != nil || ctx.Err() != nil {
			return err
		}
		ok, said := ofTokens.judge(run.Samples)
		first, last := run.Samples[len(run.Samples)/3], run.Samples[len(run.Samples)-1]
		told := fmt.Sprintf("%s: %s, %d to %d MiB", one.name, said, first.Resident/mib, last.Resident/mib)
		switch {
		case one.leak > 0 && ok:
			s.Fail(nil, "the rule for memory cannot fail: %s", told)
		case one.leak == 0 && !ok:
			data, _ := json.Marshal(run)
			s.Fail(data, "memory grows: %s, want at most %.0f MiB", told, ofTokens.bytes/mib)
		}
		s.Note("%s", told)
		done = append(done, run)
		data, err := json.Marshal(done)
		if err != nil {
			return err
		}
		if err := filesys.Write(path, data); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	if err := compilations(ctx, s); err != nil || ctx.Err() != nil || s.Quick {
		return err
	}
	picture, err := plotMemory(done)
	if err != nil {
		return err
	}
	return filesys.Write(filepath.Join(s.Root, memoryPicture), picture)
}

func finished(done []memoryRun, name string) bool {
	for _, r := range done {
		if r.Name == name {
			return true
		}
	}
	return false
}

// tokensOf makes tokens with one generator a cache, which stay. It takes a sample where every cache
// has had every round as often as the others, so that two samples differ by time and not by shapes.
func tokensOf(ctx context.Context, s *soak.Sitting, stage string, open func() (*llama.Model, error), list []named, want soak.Amount, times, leak int) (memoryRun, error) {
	run := memoryRun{Name: stage}
	b, err := backend()
	if err != nil {
		return run, err
	}
	m, err := open()
	if err != nil {
		return run, err
	}
	var generators []*llama.Generator
	for _, c := range list {
		g, end, err := generatorOf(s, m, c)
		if err != nil {
			return run, err
		}
		defer end()
		generators = append(generators, g)
	}
	amount := want.Full
	if s.Quick {
		amount = want.Quick
	}
	made, counted := 0, s.Tried(stage)
	var kept [][]byte // stays to the end
	generate := func(i int) error {
		r := rounds[i/len(generators)%len(rounds)]
		rows := slices.Repeat(r.lengths, times)
		g := generators[i%len(generators)]
		result, err := g.Generate(ctx, prompts(m.Config().VocabSize, uint64(i), rows...), greedy(r.tokens))
		if err != nil {
			return err
		}
		for row := range rows {
			made += result.Lengths[row]
		}
		return nil
	}
	// First all shapes once, so that everything is compiled.
	compile := len(generators) * len(rounds)
	if s.Quick {
		compile = len(generators)
	}
	for i := range compile {
		s.Doing("%s: compiles %d of %d", stage, i+1, compile)
		if err := generate(i); err != nil {
			return run, err
		}
	}
	made = 0
	for i := 0; made < amount || i%compile != 0; i++ {
		which := i
		if s.Quick {
			which = i % compile // the shapes that are compiled
		}
		before := made
		if err := generate(which); err != nil {
			return run, err
		}
		if leak > 0 {
			block := make([]byte, (made-before)*leak)
			for j := range block {
				block[j] = byte(j | 1) // a page that is never written takes no memory
			}
			kept = append(kept, block)
		}
		if (i+1)%compile == 0 {
			run.Samples = append(run.Samples, measure(made, b))
		}
		s.Tries(stage, max(0, min(made, amount)-counted))
		counted = max(counted, min(made, amount))
		s.More(stage, want) // for the lines of progress
	}
	runtime.KeepAlive(kept)
	return run, nil
}

// plotMemory draws how far memory lies above the least of its run, over tokens, and the rule.
func plotMemory(done []memoryRun) ([]byte, error) {
	var lines []bench.Line
	far := 0.0
	for _, r := range done {
		of := func(name string, of func(sample) int64) bench.Line {
			least := of(r.Samples[0])
			for _, s := range r.Samples {
				least = min(least, of(s))
			}
			line := bench.Line{Name: name}
			for _, s := range r.Samples {
				line.X, line.Y = append(line.X, float64(s.At)/1000), append(line.Y, float64(of(s)-least)/mib)
				far = max(far, float64(s.At)/1000)
			}
			return line
		}
		lines = append(lines, of(r.Name, func(s sample) int64 { return s.Resident }))
		if s := r.Samples[0]; s.Device > s.Resident+s.Resident/8 || s.Device < s.Resident-s.Resident/8 {
			lines = append(lines, of(r.Name+", device", func(s sample) int64 { return s.Device }))
		}
	}
	limit := bench.Line{Name: fmt.Sprintf("%.0f MiB in %d tokens", ofTokens.bytes/mib, ofTokens.per), Limit: true,
		X: []float64{0, far}, Y: []float64{0, far * 1000 / float64(ofTokens.per) * ofTokens.bytes / mib}}
	return bench.Plot("Growth of one process after everything is compiled", "tokens made (thousands)", "resident memory above its least (MiB)", append(lines, limit)...)
}
