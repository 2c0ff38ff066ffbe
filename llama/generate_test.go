package llama

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/internal/golden"
	"github.com/kvqbook/kvqbook/internal/testbackend"
	"github.com/kvqbook/kvqbook/internal/testlane"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama/modelfile"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// caches are the configurations that every test of the seam runs over; head dim 16.
var caches = map[string]kvq.Config{
	"full":   {},
	"quanto": {Backend: kvq.Quanto, NBits: 4, QGroupSize: 16, ResidualLength: 4},
	"blocks": {Backend: kvq.Blocks, NBits: 8, QGroupSizeKey: 32, QGroupSizeValue: 16, ResidualLength: 4, AxisKey: kvq.PerChannel, Sinks: 2},
}

// ragged is how many tokens the prompts of raggedBatch have: every cache of caches codes some of
// each at prefill, and with the twelve of greedy12 another block of some rows leaves the window.
// Alone, all three need the same graph.
var ragged = []int{49, 55, 64}

// raggedBatch is three prompts, padded to 64 columns.
func raggedBatch() (ids, mask [][]int32) {
	for row, n := range ragged {
		id, m := make([]int32, 64), make([]int32, 64)
		for i := 64 - n; i < 64; i++ {
			id[i], m[i] = int32(3+(row*71+i*37)%250), 1
		}
		ids, mask = append(ids, id), append(mask, m)
	}
	return ids, mask
}

func mustGenerate(t testing.TB, g *Generator, ids, mask [][]int32, gc GenerateConfig) *Result {
	t.Helper()
	r, err := g.Generate(context.Background(), tokenizer.Batch{IDs: ids, Mask: mask}, gc)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// runAll runs a generation to its end.
func runAll(t testing.TB, r *run) {
	t.Helper()
	r.blocks(context.Background(), func(_ Block, err error) bool {
		if err != nil {
			t.Fatal(err)
		}
		return true
	})
}

// greedy12 is twelve tokens with their logits, which no token ends.
func greedy12() GenerateConfig {
	return GenerateConfig{MaxNewTokens: 12, EOS: []tokenizer.Token{}, KeepLogits: true}
}

// A row in a batch gives what it gives alone, in each cache.
func TestRowsDoNotTouchOneAnother(t *testing.T) {
	testlane.Slow(t, "compiles for batches of several sizes")
	ids, mask := raggedBatch()
	for name, cache := range caches {
		t.Run(name, func(t *testing.T) {
			g := tinyGenerator(t, "tiny-llama2-gqa", cache)
			together := mustGenerate(t, g, ids, mask, greedy12())
			for row, n := range ragged {
				alone := mustGenerate(t, g, [][]int32{ids[row][64-n:]}, nil, greedy12())
				sameRow(t, fmt.Sprintf("row %d", row), together, row, alone, 0)
			}
		})
	}
}

// sameRow compares the tokens of one row of two results, and the logits within what another order
// of sums may change.
func sameRow(t *testing.T, what string, a *Result, i int, b *Result, j int) {
	t.Helper()
	if !slices.Equal(a.Row(i), b.Row(j)) {
		t.Errorf("%s: tokens %v and %v", what, a.Row(i), b.Row(j))
		return
	}
	for step := range a.Logits {
		if d := worst(t, a.Logits[step][i], b.Logits[step][j]); d > 1e-4 {
			t.Errorf("%s, step %d: logits differ by up to %g, want at most 1e-4", what, step, d)
		}
	}
}

// More padding on the left, a larger cache, and a cache that grows on the way change nothing.
func TestSizesChangeNothing(t *testing.T) {
	testlane.Slow(t, "compiles a model for every size")
	ids, mask := raggedBatch()
	for name, cache := range caches {
		t.Run(name, func(t *testing.T) {
			g := tinyGenerator(t, "tiny-llama2-gqa", cache)
			want := mustGenerate(t, g, ids, mask, greedy12())
			for _, size := range []struct{ columns, capacity int }{{96, 128}, {64, 68}} {
				r, err := g.newRun(tokenizer.Batch{IDs: ids, Mask: mask}, greedy12())
				if err != nil {
					t.Fatal(err)
				}
				r.prompt = r.prompt.resize(size.columns)
				if r.plan, err = g.Plan(3, size.capacity); err != nil {
					t.Fatal(err)
				}
				runAll(t, r)
				if size.capacity < size.columns+11 && r.cache.capacity() <= size.capacity {
					t.Errorf("the cache of %d slots did not grow", size.capacity)
				}
				got := r.result
				for row := range ids {
					sameRow(t, fmt.Sprintf("%+v, row %d", size, row), got, row, want, row)
				}
			}
		})
	}
}

// New settings are inputs of the graphs: nothing is compiled for them.
func TestSettingsDoNotCompileAnew(t *testing.T) {
	g := tinyGenerator(t, "tiny-llama2", kvq.Config{})
	ids, mask := raggedBatch()
	gc := GenerateConfig{DoSample: true, Temperature: 1, TopP: 0.9, TopK: 50, MaxNewTokens: 8, Seed: 1, BlockSize: 3}
	mustGenerate(t, g, ids, mask, gc)
	compiled := g.programs.all.Len()
	gc = GenerateConfig{DoSample: true, Temperature: 0.5, TopP: 0.8, TopK: 5, MaxNewTokens: 21, MinNewTokens: 3, Seed: 2, EOS: []tokenizer.Token{7, 8}, PadID: new(tokenizer.Token(9)), BlockSize: 5}
	if r := mustGenerate(t, g, ids, mask, gc); r.Timing.Compile.Seconds() > 1e-2 && g.programs.all.Len() == compiled {
		t.Logf("waited %v for compiled graphs", r.Timing.Compile)
	}
	if n := g.programs.all.Len(); n != compiled {
		t.Errorf("%d graphs after a change of settings, %d before", n, compiled)
	}
}

func TestSeedDecidesTheText(t *testing.T) {
	testlane.Slow(t, "compiles a graph for every setting")
	g := tinyGenerator(t, "tiny-llama2", kvq.Config{})
	ids, mask := raggedBatch()
	gc := GenerateConfig{DoSample: true, Temperature: 1.5, TopP: 0.95, MaxNewTokens: 24, EOS: []tokenizer.Token{}, Seed: 5}
	first := mustGenerate(t, g, ids, mask, gc)
	gc.BlockSize = 7
	if again := mustGenerate(t, g, ids, mask, gc); !slices.EqualFunc(first.Tokens, again.Tokens, slices.Equal) {
		t.Errorf("same seed in other blocks: %v, then %v", first.Tokens, again.Tokens)
	}
	if alone := mustGenerate(t, g, ids[:1], mask[:1], gc); !slices.Equal(first.Tokens[0], alone.Tokens[0]) {
		t.Errorf("row 0 in a batch: %v, alone: %v", first.Tokens[0], alone.Tokens[0])
	}
	gc.Seed = 6
	if other := mustGenerate(t, g, ids, mask, gc); slices.EqualFunc(first.Tokens, other.Tokens, slices.Equal) {
		t.Errorf("seeds 5 and 6 both give %v", first.Tokens)
	}
	gc.TopK, gc.Temperature = 1, 10
	greedy := mustGenerate(t, g, ids, mask, GenerateConfig{MaxNewTokens: 24, EOS: []tokenizer.Token{}})
	if one := mustGenerate(t, g, ids, mask, gc); !slices.EqualFunc(greedy.Tokens, one.Tokens, slices.Equal) {
		t.Errorf("top_k = 1 gives %v, greedy %v", one.Tokens, greedy.Tokens)
	}
}

// A row ends with the first end-of-sequence token and is padded from then on; the others go on as
// if nothing were.
func TestRowsEndAtEOS(t *testing.T) {
	g := tinyGenerator(t, "tiny-llama2", kvq.Config{})
	ids, mask := raggedBatch()
	free := mustGenerate(t, g, ids, mask, GenerateConfig{MaxNewTokens: 12, EOS: []tokenizer.Token{}})
	// The fourth token of row 1 ends it, unless it comes in another row or earlier too: then those
	// end there.
	end := free.Tokens[1][3]
	var streamed [3][]int32
	var r *Result
	for block, err := range g.Stream(context.Background(), tokenizer.Batch{IDs: ids, Mask: mask},
		GenerateConfig{MaxNewTokens: 12, EOS: []tokenizer.Token{end}, PadID: new(tokenizer.Token(200))}) {
		if err != nil {
			t.Fatal(err)
		}
		for i, tokens := range block.Tokens {
			streamed[i] = append(streamed[i], tokens...)
		}
		r = block.Result
	}
	longest := 0
	for row := range ids {
		want := free.Tokens[row]
		if i := slices.Index(want, end); i >= 0 {
			want = want[:i+1]
		}
		longest = max(longest, len(want))
		if !slices.Equal(r.Row(row), want) {
			t.Errorf("row %d: %v, want %v", row, r.Row(row), want)
		}
		if !slices.Equal(streamed[row], want) {
			t.Errorf("row %d: in blocks came %v, want %v", row, streamed[row], want)
		}
		for _, token := range r.Tokens[row][r.Lengths[row]:] {
			if token != 200 {
				t.Errorf("row %d: %v is padded with %d, want 200", row, r.Tokens[row], token)
			}
		}
	}
	if len(r.Tokens[0]) != longest {
		t.Errorf("%d columns, want %d", len(r.Tokens[0]), longest)
	}
	// min_new_tokens forbids the end: the row takes the next best token there.
	later := mustGenerate(t, g, ids, mask, GenerateConfig{MaxNewTokens: 12, MinNewTokens: 8, EOS: []tokenizer.Token{end}})
	for row := range ids {
		if i := slices.Index(later.Tokens[row], end); i >= 0 && i < 8 {
			t.Errorf("row %d ends after %d tokens, min_new_tokens is 8", row, i+1)
		}
	}
}

// The model's own end-of-sequence token is used when none is named, and all rows ending ends the
// generation.
func TestAllRowsEnded(t *testing.T) {
	g := tinyGenerator(t, "tiny-llama2", kvq.Config{})
	ids, mask := raggedBatch()
	every := make([]tokenizer.Token, 256)
	for i := range every {
		every[i] = tokenizer.Token(i)
	}
	r := mustGenerate(t, g, ids, mask, GenerateConfig{MaxNewTokens: 12, EOS: every})
	if r.Stop != StopEOS || !slices.Equal(r.Lengths, []int{1, 1, 1}) || r.Timing.Steps != 0 {
		t.Errorf("stopped by %q after %v tokens and %d steps, want by eos after 1 each and no step", r.Stop, r.Lengths, r.Timing.Steps)
	}
	if got := (GenerateConfig{}).picker(g.Model().Config(), 1).Inputs(0, 1, 1)[0].([]tokenizer.Token); !slices.Equal(got, []int32{2, -1, -1, -1}) {
		t.Errorf("endings %v, want the model's own", got)
	}
}

func TestCancelKeepsTheTextSoFar(t *testing.T) {
	g := tinyGenerator(t, "tiny-llama2", kvq.Config{})
	ids, mask := raggedBatch()
	gc := GenerateConfig{MaxNewTokens: 100, EOS: []tokenizer.Token{}, BlockSize: 4}
	want := mustGenerate(t, g, ids, mask, gc)

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	batch := tokenizer.Batch{IDs: ids, Mask: mask}
	blocks := 0
	var r *Result
	var err error
	for block, e := range g.Stream(ctx, batch, gc) {
		if blocks++; blocks == 3 {
			cancel()
		}
		r, err = block.Result, e
	}
	if !errors.Is(err, context.Canceled) || r == nil || r.Stop != StopCancelled {
		t.Fatalf("error %v with %+v, want context.Canceled with a result", err, r)
	}
	for row := range ids { // the first token alone, then two blocks of four
		if !slices.Equal(r.Row(row), want.Row(row)[:9]) {
			t.Errorf("row %d: %v, want %v", row, r.Row(row), want.Row(row)[:9])
		}
	}
	// Cancelled before it begins: no tokens, and no device time.
	r, err = g.Generate(ctx, tokenizer.Batch{IDs: ids, Mask: mask}, gc)
	if !errors.Is(err, context.Canceled) || r == nil || len(r.Tokens[0]) != 0 {
		t.Errorf("error %v with %+v, want context.Canceled and no tokens", err, r)
	}
	// A loop that breaks ends the generation too; what came until then stays.
	for block, err := range g.Stream(context.Background(), batch, gc) {
		if r = block.Result; err != nil || r.Stop != "" {
			t.Fatalf("error %v with %+v, want the first block of several", err, r)
		}
		break
	}
	if r.Stop != StopBreak || len(r.Tokens[0]) != 1 || r.Cache.Total() == 0 {
		t.Errorf("%+v, want one token after a break", r)
	}
	// It can be begun anew.
	blocks, again := 0, g.Stream(context.Background(), batch, gc)
	for range 2 {
		for _, err := range again {
			if blocks++; err != nil {
				t.Fatal(err)
			}
			if blocks%2 == 0 {
				break
			}
		}
	}
	if blocks != 4 {
		t.Errorf("%d blocks in two loops of two", blocks)
	}
}

// The context of the tiny models is 512 positions: after a prompt of 500 tokens, 13 more are
// possible, the last of which is never fed.
func TestGenerationEndsWithTheContext(t *testing.T) {
	g := tinyGenerator(t, "tiny-llama2", kvq.Config{})
	prompt := make([]int32, 500)
	for i := range prompt {
		prompt[i] = int32(3 + i*37%250)
	}
	r := mustGenerate(t, g, [][]int32{prompt}, nil, GenerateConfig{MaxNewTokens: 100, EOS: []tokenizer.Token{}})
	if r.Stop != StopContext || len(r.Tokens[0]) != 13 {
		t.Errorf("stopped by %q after %d tokens, want by context after 13", r.Stop, len(r.Tokens[0]))
	}
}

// 16-bit weights and caches run, and stay near float32.
func TestHalfPrecision(t *testing.T) {
	testlane.Slow(t, "compiles a model in float16 and bfloat16")
	info, want := readTiny(t, "tiny-llama2-gqa")
	in, forced := info.Inputs["len16"], info.Variants["len16.full"].Generated
	for _, c := range []struct {
		weights, cache dtypes.DType
		tolerance      float64 // of the root mean square; the logits' own is 2.0
	}{
		{dtypes.Float32, dtypes.Float16, 0.01},
		{dtypes.Float32, dtypes.BFloat16, 0.05},
		{dtypes.Float16, dtypes.Float16, 0.02},
		{dtypes.BFloat16, dtypes.BFloat16, 0.15},
	} {
		t.Run(fmt.Sprintf("%s/%s", c.weights, c.cache), func(t *testing.T) {
			g, err := newGenerator(tinyModel(t, "tiny-llama2-gqa", c.weights), kvq.Config{}, c.cache)
			if err != nil {
				t.Fatal(err)
			}
			defer g.Finalize()
			r := mustGenerate(t, g, in.IDs, in.Mask, GenerateConfig{TeacherForced: forced, KeepLogits: true})
			golden := want["len16.full.logits"]
			var sum, size float64
			for step := range r.Logits {
				for row := range r.Logits[step] {
					for id, got := range r.Logits[step][row] {
						want := float64(golden.Floats[(row*24+step)*256+id])
						sum += (float64(got) - want) * (float64(got) - want)
						size += want * want
					}
				}
			}
			n := float64(len(golden.Floats))
			off := math.Sqrt(sum / n)
			t.Logf("logits differ from float32 by %.4f (root mean square, theirs %.2f)", off, math.Sqrt(size/n))
			if !(off <= c.tolerance && off > 0) { // exactly 0 would mean that nothing was rounded
				t.Errorf("logits differ from float32 by %g, want above 0 and at most %g", off, c.tolerance)
			}
		})
	}
}

// Weights that are not numbers end the generation with an error, not with nonsense.
func TestNaNWeightsAreAnError(t *testing.T) {
	backend := testbackend.XLA(t)
	files, err := Open(filepath.Join(golden.Dir(t), "tiny-llama2"))
	if err != nil {
		t.Fatal(err)
	}
	w, err := loadAll(files, nil, LoadOptions{DType: dtypes.Float32})
	if err != nil {
		t.Fatal(err)
	}
	m, err := newModel(backend, files.Config(), dtypes.Float32, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Finalize()
	err = m.place(func(yield func(loaded, error) bool) {
		for _, x := range w {
			if x.weight.HF == "model.layers.1.mlp.down_proj.weight" {
				tensors.MustMutableFlatData(x.tensor, func(flat []float32) { flat[5] = float32(math.NaN()) })
			}
			yield(x, nil)
		}
	}, func(modelfile.Weight) {})
	if err != nil {
		t.Fatal(err)
	}
	ids, mask := raggedBatch()
	r, err := mustGenerator(t, m, kvq.Config{}).Generate(context.Background(), tokenizer.Batch{IDs: ids, Mask: mask}, GenerateConfig{MaxNewTokens: 3})
	if err == nil || !strings.Contains(err.Error(), "not numbers") || r.Stop != StopFailed {
		t.Errorf("got %v and %+v, want an error about logits that are not numbers", err, r)
	}
}

// Two generations at once give what they give one after the other.
func TestConcurrentGenerations(t *testing.T) {
	g := tinyGenerator(t, "tiny-llama2", kvq.Config{})
	ids, mask := raggedBatch()
	gc := GenerateConfig{MaxNewTokens: 30, EOS: []tokenizer.Token{}, BlockSize: 5}
	results := make([]*Result, 4)
	var all sync.WaitGroup
	for i := range results {
		all.Go(func() {
			r, err := g.Generate(context.Background(), tokenizer.Batch{IDs: ids, Mask: mask}, gc)
			if err != nil {
				t.Error(err)
			}
			results[i] = r
		})
	}
	all.Wait()
	for _, r := range results[1:] {
		if !slices.EqualFunc(r.Tokens, results[0].Tokens, slices.Equal) {
			t.Errorf("%v and %v", r.Tokens, results[0].Tokens)
		}
	}
}

// The bytes that a generation reports are those of its plan.
func TestReportedCacheBytes(t *testing.T) {
	for name, cache := range caches {
		g := tinyGenerator(t, "tiny-llama2-gqa", cache)
		ids, mask := raggedBatch()
		r := mustGenerate(t, g, ids, mask, GenerateConfig{MaxNewTokens: 1})
		plan, err := g.Plan(3, 128)
		if err != nil {
			t.Fatal(err)
		}
		if r.Cache != plan.Memory() {
			t.Errorf("%s: %+v, the plan says %+v", name, r.Cache, plan.Memory())
		}
		// 2 layers, keys and values, 3 rows, 2 heads, 128 slots, 16 elements of 4 bytes; length and
		// start as int32.
		if want := int64(2*2*3*2*128*16*4 + 4 + 3*4); r.FullCacheBytes != want {
			t.Errorf("%s: a full-precision cache of %d bytes, want %d", name, r.FullCacheBytes, want)
		}
		// transformers' policy codes the whole prompt, ours what is older than the window, in
		// groups of
		// 32. The new token has not been through the model.
		for i := range mask {
			want := map[string]int{"full": 0, "quanto": ragged[i], "blocks": 32}[name]
			if len(r.CodedTokens) != len(mask) || r.CodedTokens[i] != want {
				t.Errorf("%s: %v tokens in codes, want %d of row %d", name, r.CodedTokens, want, i)
			}
		}
	}
}
