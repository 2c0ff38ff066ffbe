package main

import (
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"

	"github.com/kvqbook/kvqbook/internal/golden"
	"github.com/kvqbook/kvqbook/internal/judge/task"
	"github.com/kvqbook/kvqbook/internal/passkey"
	"github.com/kvqbook/kvqbook/internal/testbackend"
	"github.com/kvqbook/kvqbook/internal/testlane"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama"
)

// All parts of --judge on a random model, and a second run: full precision parts from itself never,
// a coarse cache does, in sampled texts too; what is stored is not measured again.
func TestJudgeOnRandomModel(t *testing.T) {
	testlane.OnlyAll(t, "compiles all graphs of two caches")
	files, err := llama.Open(filepath.Join(golden.Dir(t), "tiny-llama2-gqa"))
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{base: key{Model: "m", Device: "d", Version: "v"}, log: io.Discard}
	if b.store, err = openStore(filepath.Join(t.TempDir(), "judged.jsonl")); err != nil {
		t.Fatal(err)
	}
	if b.model, err = files.Load(testbackend.XLA(t), llama.LoadOptions{DType: dtypes.Float32, Weights: llama.PlainWeights}); err != nil {
		t.Fatal(err)
	}
	if b.full, err = llama.NewGenerator(b.model, kvq.Config{}); err != nil {
		t.Fatal(err)
	}
	tokens := func(n, seed int) (ids []int32) {
		for i := range n {
			ids = append(ids, int32(3+(seed*53+i*i*7+i)%250))
		}
		return ids
	}
	s := sizes{texts: 2, edges: []int{prefill, 80, 100}, prompts: 4, seeds: 2, newTokens: 40, asked: []askedSize{{30, 3, 2, []task.Kind{task.Sums}}}}
	b.judge = &judgement{sizes: s, long: [][]int32{tokens(100, 1), tokens(100, 2)}, prompts: [][]int32{tokens(9, 3), tokens(9, 4), tokens(9, 5), tokens(9, 6)},
		trials: map[int]askedTexts{30: {2, []askedTrials{{task.Sums, []passkey.Trial{{Text: tokens(20, 7), Tail: tokens(4, 8), Last: 2},
			{Text: tokens(22, 9), Tail: tokens(6, 10), Last: 1}, {Text: tokens(18, 11), Tail: tokens(2, 12), Last: 1}}}}}}}
	// A cache of one layer's worth of groups, two bits: coarse enough to change what is written.
	coarse := kvq.Config{Backend: kvq.Quanto, NBits: 2, QGroupSize: 16, ResidualLength: 4}
	var jobs []job
	for _, c := range []step{{name: "full precision"}, {name: "coarse", config: coarse}} {
		jobs = append(jobs, job{step: c, part: partPosition}, job{step: c, part: partFree}, job{step: c, part: partAsked, length: 30})
	}
	b.share(t.Context(), jobs)
	if err := b.run(t.Context(), jobs, 3); err != nil {
		t.Fatal(err)
	}
	if left, err := b.missing(jobs); err != nil || len(left) > 0 {
		t.Fatalf("%d rows are not stored: %v", len(left), err)
	}
	g := b.store.newestJudged()
	full, own := step{name: "full precision"}, step{config: coarse}
	for _, c := range []step{full, own} {
		quantized := c.config.Quantized()
		r, _ := g.find(c, partPosition, 0)
		if len(r.Judged.Bins) != 2 || r.Judged.Bins[0].Tokens != 2*16 || r.Judged.Bins[1].Tokens != 2*20 || (r.Judged.Bins[1].KL > 1e-6) != quantized || r.Judged.Bins[0].NLL <= 0 {
			t.Errorf("%s: bins %+v", c.config, r.Judged.Bins)
		}
		r, _ = g.find(c, partFree, 0)
		if len(r.Judged.Texts) != 8 {
			t.Fatalf("%s: %d texts, want 4 greedy and 4 sampled ones", c.config, len(r.Judged.Texts))
		}
		parted := map[bool]int{}
		for _, text := range r.Judged.Texts {
			if text.Tokens != s.newTokens || text.NLL <= 0 {
				t.Errorf("%s: %+v", c.config, text)
			}
			if text.Parted < text.Tokens {
				parted[text.Sampled]++
			}
		}
		if (parted[true] > 0) != quantized || !quantized && parted[false] > 0 {
			t.Errorf("%s: %d greedy and %d sampled texts part", c.config, parted[false], parted[true])
		}
		r, _ = g.find(c, partAsked, 30)
		if len(r.Judged.Asked) != 1 || strings.Trim(r.Judged.Asked[0].Right, "01") != "" || len(r.Judged.Asked[0].Right) != 3 {
			t.Errorf("%s: answers %+v", c.config, r.Judged.Asked)
		}
	}
	// Another generator of the same cache has the same random numbers and writes the same.
	other, err := llama.NewGenerator(b.model, kvq.Config{})
	if err != nil {
		t.Fatal(err)
	}
	w, err := b.write(t.Context(), other)
	if err != nil {
		t.Fatal(err)
	}
	first, err := b.judge.written()
	if err != nil {
		t.Fatal(err)
	}
	for i, text := range compareWritten(b.judge, w, first, first.scores, nil) {
		if text.Parted != text.Tokens {
			t.Errorf("text %d, sampled %t: full precision parts from itself at %d", i, text.Sampled, text.Parted)
		}
	}
}
