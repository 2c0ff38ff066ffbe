package kvq_test

import (
	"context"
	"errors"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/layers"
	"github.com/gomlx/gomlx/ml/layers/norm"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/google/go-cmp/cmp"
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/testbackend"
	"github.com/kvqbook/kvqbook/internal/testlane"
	. "github.com/kvqbook/kvqbook/kvq"
)

const decoderVocabulary = 31

// layersDecoder is a decoder of GoMLX's layers: embeddings of tokens and positions, then a norm,
// attention of 4 heads over 2 key/value heads of 16, dropout, and a feed-forward part. ids [B, t]
// -> logits [B, t, V].
func layersDecoder(scope *model.Scope, cache Cache, in []*Node) []*Node {
	ids := in[0]
	b, t := ids.Shape().Dim(0), ids.Shape().Dim(1)
	embed := func(scope *model.Scope, ids *Node, size int) *Node {
		return layers.Embedding(scope, ExpandAxes(ids, -1), dtypes.Float32, size, 64)
	}
	x := Add(embed(scope.In("tokens"), ids, decoderVocabulary), embed(scope.In("positions"), cache.Positions(t), 512))
	for i := range 1 {
		scope := scope.In("layer_%d", i)
		h := norm.LayerNorm(scope.In("norm"), x, -1).Done()
		heads := func(name string, n int) *Node {
			return TransposeAllAxes(Reshape(layers.Dense(scope.In("%s", name), h, true, n*16), b, t, n, 16), 0, 2, 1, 3)
		}
		layer := cache.Layer(i)
		layer.Append(heads("keys", 2), heads("values", 2))
		h = Reshape(TransposeAllAxes(layer.Attend(heads("queries", 4)), 0, 2, 1, 3), b, t, 64)
		x = Add(x, layers.DropoutStatic(scope, layers.Dense(scope.In("out"), h, true, 64), 0.1))
		x = Add(x, Tanh(layers.Dense(scope.In("ff"), x, true, 64)))
	}
	cache.Advance()
	return []*Node{layers.Dense(scope.In("logits"), x, false, decoderVocabulary)}
}

func decoderPlan(t *testing.T, config Config, batch, capacity int) *Plan {
	t.Helper()
	p, err := New(config, Shape{Layers: 1, Batch: batch, KVHeads: 2, HeadDim: 16, Capacity: capacity, DType: dtypes.Float32})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func decoderStore() *model.Store {
	store := model.NewStore()
	store.SetParam(model.ParamInitialSeed, int64(3))
	return store
}

// newDecoder is a session of layersDecoder. All have the same weights, and those of equal arguments
// the same graphs: they are forks of one that stays empty.
func newDecoder(t *testing.T, config Config, batch, capacity int) *Session {
	t.Helper()
	key := decoderKey{config, batch, capacity}
	if decoders[key] == nil {
		s, err := NewSession(testbackend.XLA(t), decoderStore(), decoderPlan(t, config, batch, capacity), layersDecoder)
		if err != nil {
			t.Fatal(err)
		}
		decoders[key] = s
	}
	s, err := decoders[key].Fork(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Finalize)
	return s
}

type decoderKey struct {
	config          Config
	batch, capacity int
}

var decoders = map[decoderKey]*Session{}

// small is a cache in codes of 8 bits that codes early: blocks of 32 tokens beyond the newest 8.
func small() Config {
	return Config{Backend: Blocks, NBits: 8, QGroupSizeKey: 16, QGroupSizeValue: 16, ResidualLength: 8}
}

// stepwise is what one call of Step after the other picks on the host, from a prompt of one length.
func stepwise(t *testing.T, s *Session, prompt [][]int32, n int) [][]int32 {
	t.Helper()
	ctx := context.Background()
	rows := make([][]int32, len(prompt))
	out, err := s.Prefill(ctx, prompt)
	for range n {
		if err != nil {
			t.Fatal(err)
		}
		next := make([][]int32, len(prompt))
		for i, logits := range lastRows(t, out[0]) {
			token := int32(0)
			for v, x := range logits {
				if x > logits[token] {
					token = int32(v)
				}
			}
			rows[i], next[i] = append(rows[i], token), []int32{token}
		}
		out, err = s.Step(ctx, next)
	}
	return rows
}

// lastRows are the logits of each row's last token.
func lastRows(t *testing.T, x *tensors.Tensor) [][]float32 {
	t.Helper()
	flat, err := tensors.CopyFlatData[float32](x)
	if err != nil {
		t.Fatal(err)
	}
	d := x.Shape().Dimensions
	var rows [][]float32
	for i := range d[0] {
		end := (i + 1) * d[1] * d[2]
		rows = append(rows, flat[end-d[2]:end])
	}
	return rows
}

func mustGenerateTokens(t *testing.T, s *Session, g Generation) [][]int32 {
	t.Helper()
	out, err := s.Generate(context.Background(), g)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// The loop on the device picks what single steps pick, across the growth of the cache; blocks, and
// generations one after the other, make no difference; and all tokens are in the cache afterwards.
func TestSessionGeneratesAsItSteps(t *testing.T) {
	prompt := [][]int32{{1, 2, 3, 4, 5, 6, 7, 8}, {9, 9, 2, 1, 30, 7, 4, 4}}
	for name, config := range map[string]Config{"full": {}, "codes": small()} {
		t.Run(name, func(t *testing.T) {
			if config.Quantized() {
				testlane.OnlyAll(t, "compiles a quantized cache in six graphs; ExampleSession has one")
			}
			n, first, grown := 20, 16, 32
			if config.Quantized() {
				n, first, grown = 60, 64, 128 // more than the window
			}
			s := newDecoder(t, config, 2, first)
			want := stepwise(t, s, prompt, n)
			if c := s.Plan().Shape().Capacity; c != grown || s.Length() != 8+n {
				t.Errorf("%d tokens in %d slots, want %d in %d", s.Length(), c, 8+n, grown)
			}
			s = newDecoder(t, config, 2, first)
			if _, err := s.Prefill(context.Background(), prompt); err != nil {
				t.Fatal(err)
			}
			got := mustGenerateTokens(t, s, Generation{MaxTokens: 1})
			for i, more := range mustGenerateTokens(t, s, Generation{MaxTokens: 11, Block: 4}) {
				got[i] = append(got[i], more...)
			}
			for i, more := range mustGenerateTokens(t, s, Generation{MaxTokens: n - 12}) {
				got[i] = append(got[i], more...)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("tokens (-single steps +loop):\n%s", diff)
			}
			if s.Length() != 8+n {
				t.Errorf("length %d, want %d", s.Length(), 8+n)
			}
			checkAgainstRecompute(t, s, prompt, got, name == "full")
		})
	}
}

// checkAgainstRecompute steps once more, and compares with a model that reads all tokens in one
// call, without a cache.
func checkAgainstRecompute(t *testing.T, s *Session, prompt, made [][]int32, exact bool) {
	t.Helper()
	ctx := context.Background()
	out, err := s.Step(ctx, [][]int32{{3}, {3}})
	if err != nil {
		t.Fatal(err)
	}
	got := lastRows(t, out[0])
	whole := make([][]int32, len(prompt))
	for i := range whole {
		whole[i] = slices.Concat(prompt[i], made[i], []int32{3})
	}
	f := newDecoder(t, Config{}, 2, 128)
	if out, err = f.Prefill(ctx, whole); err != nil {
		t.Fatal(err)
	}
	limit := 1e-4
	if !exact {
		limit = 0.05
	}
	for i, want := range lastRows(t, out[0]) {
		for v := range want {
			if d := math.Abs(float64(got[i][v] - want[v])); !(d <= limit) {
				t.Fatalf("row %d, token %d: logit %g, recomputed %g: off by %g, want at most %g", i, v, got[i][v], want[v], d, limit)
			}
		}
	}
}

// Crop, Reorder, Fork, Save and Load do to a session what they say, with tokens that Generate has
// made too.
func TestSessionEdits(t *testing.T) {
	ctx := context.Background()
	config := small()
	if !testlane.All() {
		config = Config{}
	}
	s := newDecoder(t, config, 2, 128)
	prompt := [][]int32{{1, 2, 3, 4, 5, 6, 7, 8}, {9, 9, 2, 1, 30, 7, 4, 4}}
	if _, err := s.Prefill(ctx, prompt); err != nil {
		t.Fatal(err)
	}
	next := func(s *Session, what string, length int, tokens ...int32) [][]float32 {
		t.Helper()
		if s.Length() != length {
			t.Fatalf("%s: length %d, want %d", what, s.Length(), length)
		}
		var in [][]int32
		for _, x := range tokens {
			in = append(in, []int32{x})
		}
		out, err := s.Step(ctx, in)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		return lastRows(t, out[0])
	}
	same := func(what string, got, want [][]float32) {
		t.Helper()
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: logits (-want +got):\n%s", what, diff)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	fork := func(s *Session, rows ...int) *Session {
		t.Helper()
		f, err := s.Fork(ctx, rows...)
		must(err)
		t.Cleanup(f.Finalize)
		return f
	}
	made := mustGenerateTokens(t, s, Generation{MaxTokens: 50})
	kept := fork(s) // nobody has read the newest token yet
	path := filepath.Join(t.TempDir(), "cache")
	must(fork(s).Save(ctx, path))
	want := next(fork(s), "generated", 58, 1, 2)

	loaded := fork(s)
	loaded.Reset()
	must(loaded.Load(path))
	same("loaded", next(loaded, "loaded", 58, 1, 2), want)

	// a draft of three tokens is rejected
	if _, err := s.Step(ctx, [][]int32{{5, 6, 7}, {8, 9, 10}}); err != nil {
		t.Fatal(err)
	}
	must(s.Crop(ctx, 3))
	same("cropped", next(s, "cropped", 58, 1, 2), want)

	// the newest of Generate's tokens is forgotten, and given again
	again := fork(kept)
	must(again.Crop(ctx, 1))
	next(again, "newest cropped", 57, made[0][49], made[1][49])
	same("newest again", next(again, "newest again", 58, 1, 2), want)
	deep := fork(kept)
	must(deep.Crop(ctx, 20))
	if _, err := deep.Step(ctx, [][]int32{made[0][30:], made[1][30:]}); err != nil {
		t.Fatal(err)
	}
	near("cropped by 20 and given again", t, next(deep, "deep crop", 58, 1, 2), want, 0.05)

	swapped := fork(kept)
	must(swapped.Reorder(ctx, []int{1, 0}))
	got := next(swapped, "reordered", 58, 2, 1)
	same("reordered", [][]float32{got[1], got[0]}, want)

	// one row three times: the batch is another, its rows go apart
	three := fork(kept, 0, 0, 1)
	got = next(three, "three rows", 58, 1, 7, 2)
	near("three rows", t, [][]float32{got[0], got[2]}, want, 1e-5)
	if slices.Equal(got[0], got[1]) {
		t.Error("two copies of a row, given different tokens, answer the same")
	}
	// and all that was shared is as it was
	same("after all", next(kept, "after all", 58, 1, 2), want)
}

func near(what string, t *testing.T, got, want [][]float32, limit float64) {
	t.Helper()
	for i := range want {
		for v := range want[i] {
			if d := math.Abs(float64(got[i][v] - want[i][v])); !(d <= limit) {
				t.Fatalf("%s: row %d, token %d: %g, want %g", what, i, v, got[i][v], want[i][v])
			}
		}
	}
}

// The device holds a cache once: XLA writes the new one over the old one, in every graph that
// changes a cache and keeps its shape.
func TestSessionHoldsACacheOnce(t *testing.T) {
	ctx := context.Background()
	s := newDecoder(t, Config{}, 2, 2048)
	prompt := [][]int32{{1, 2, 3, 4}, {5, 6, 7, 8}}
	if _, err := s.Prefill(ctx, prompt); err != nil {
		t.Fatal(err)
	}
	mustGenerateTokens(t, s, Generation{MaxTokens: 3})
	_, err := s.Step(ctx, [][]int32{{1}, {1}})
	for _, edit := range []func() error{func() error { return s.Crop(ctx, 1) }, func() error { return s.Reorder(ctx, []int{0, 1}) }} {
		if err == nil {
			err = edit()
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	whole := s.Plan().Memory().Total()
	needs, err := s.Needs()
	if err != nil {
		t.Fatal(err)
	}
	updates := 0
	for name, c := range needs {
		if strings.Contains(name, "prompt:true") || strings.Contains(name, "pickKey") {
			continue
		}
		if updates++; c.Reused != whole {
			t.Errorf("%s reuses %d bytes of %d: the cache is held twice", name, c.Reused, whole)
		}
		// which takes rows from all over
		if c.Temporary > whole/2 && !strings.Contains(name, "reorder") {
			t.Errorf("%s takes %d bytes beside a cache of %d: a copy?", name, c.Temporary, whole)
		}
	}
	if updates != 4 {
		t.Errorf("%d graphs update the cache, want the loop, a step, crop and reorder: %v", updates, needs)
	}
	if m, err := s.Memory(); err != nil || m != s.Plan().Memory() {
		t.Errorf("the cache takes %+v (%v), planned %+v", m, err, s.Plan().Memory())
	}
}

// Rows end by a token, or by a Pick's own test; what they return is their own, and the generation
// ends with the last of them.
func TestSessionStops(t *testing.T) {
	ctx := context.Background()
	s := newDecoder(t, Config{}, 2, 128)
	prompt := [][]int32{{1, 2, 3, 4}, {5, 6, 7, 8}}
	// a way of picking of one's own: counts up from the index, and ends row 0 at 5, row 1 at 8
	count := NewPick(func(in PickInputs) (token, ends *Node) {
		token = gx.BroadcastToDims(in.Index, 2)
		return token, Equal(token, Const(in.Logits.Graph(), []int32{5, 8}))
	})
	run := func(g Generation) [][]int32 {
		t.Helper()
		s.Reset()
		if _, err := s.Prefill(ctx, prompt); err != nil {
			t.Fatal(err)
		}
		return mustGenerateTokens(t, s, g)
	}
	for _, block := range []int{0, 2} {
		got := run(Generation{MaxTokens: 20, Pick: count, Block: block})
		if diff := cmp.Diff([][]int32{{0, 1, 2, 3, 4, 5}, {0, 1, 2, 3, 4, 5, 6, 7, 8}}, got); diff != "" {
			t.Errorf("counted, blocks of %d (-want +got):\n%s", block, diff)
		}
		if s.Length() != 4+9 {
			t.Errorf("length %d, want 13", s.Length())
		}
		got = run(Generation{MaxTokens: 20, Pick: count, Block: block, Stop: []int32{0}})
		if diff := cmp.Diff([][]int32{{0}, {0}}, got); diff != "" {
			t.Errorf("stopped at once (-want +got):\n%s", diff)
		}
		if got = run(Generation{MaxTokens: 3, Pick: count, Block: block}); len(got[0]) != 3 || len(got[1]) != 3 {
			t.Errorf("%v, want three tokens each", got)
		}
	}
}

// Random tokens depend on the seed alone, and not on blocks or where a generation began.
func TestSessionSamples(t *testing.T) {
	ctx := context.Background()
	s := newDecoder(t, Config{}, 2, 128)
	if _, err := s.Prefill(ctx, [][]int32{{1, 2, 3, 4}, {5, 6, 7, 8}}); err != nil {
		t.Fatal(err)
	}
	run := func(g Generation) [][]int32 {
		t.Helper()
		f, err := s.Fork(ctx)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Finalize()
		return mustGenerateTokens(t, f, g)
	}
	g := Generation{MaxTokens: 25, Sample: true, Temperature: 2, TopK: 20, TopP: 0.95, Seed: 5}
	first := run(g)
	g.Block = 3
	if diff := cmp.Diff(first, run(g)); diff != "" {
		t.Errorf("in blocks of 3 (-first +now):\n%s", diff)
	}
	g.Seed = 6
	if cmp.Equal(first, run(g)) {
		t.Error("another seed gives the same tokens")
	}
}

// A stream that breaks, and a context that ends, leave a session that goes on.
func TestSessionEndsOnAContext(t *testing.T) {
	s := newDecoder(t, Config{}, 2, 128)
	ended, end := context.WithCancel(context.Background())
	end()
	if _, err := s.Prefill(ended, [][]int32{{1, 2, 3, 4}, {5, 6, 7, 8}}); !errors.Is(err, context.Canceled) || s.Length() != 0 {
		t.Fatalf("a prompt under an ended context: %v, length %d, want the context's error and an empty cache", err, s.Length())
	}
	ctx := context.Background()
	if _, err := s.Prefill(ctx, [][]int32{{1, 2, 3, 4}, {5, 6, 7, 8}}); err != nil {
		t.Fatal(err)
	}
	f, err := s.Fork(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Finalize()
	want := mustGenerateTokens(t, f, Generation{MaxTokens: 12})[0]

	var got []int32
	for fresh, err := range s.Stream(ctx, Generation{MaxTokens: 12, Block: 2}) {
		if err != nil {
			t.Fatal(err)
		}
		if got = append(got, fresh[0]...); len(got) >= 5 {
			break
		}
	}
	stopped, stop := context.WithCancel(ctx)
	defer stop()
	for fresh, err := range s.Stream(stopped, Generation{MaxTokens: 12 - len(got), Block: 2}) {
		if err != nil {
			if !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
			break
		}
		got = append(got, fresh[0]...)
		stop()
	}
	if len(got) != 7 || s.Length() != 4+7 {
		t.Fatalf("%d tokens, length %d, want 7 and 11", len(got), s.Length())
	}
	got = append(got, mustGenerateTokens(t, s, Generation{MaxTokens: 5})[0]...)
	if !slices.Equal(got, want) {
		t.Errorf("with breaks %v, at once %v", got, want)
	}
}

// What is asked of a session and cannot be is an error of one line, and changes nothing.
func TestSessionRefuses(t *testing.T) {
	ctx := context.Background()
	s := newDecoder(t, Config{}, 2, 128)
	generate := func(g Generation) error { _, err := s.Generate(ctx, g); return err }
	prefill := func(in ...any) error { _, err := s.Prefill(ctx, in...); return err }
	for _, c := range []struct {
		err  func() error
		want string
	}{
		{func() error { return generate(Generation{}) }, "kvq.Session.Generate: nothing to go on from, want a Prefill, a Step or a Generate just before"},
		{func() error { return prefill() }, "kvq.Session.Prefill: first input none, want [2, t, ...] for the new tokens of 2 rows"},
		{func() error { return prefill([]int32{1, 2}) }, "kvq.Session.Prefill: first input (Int32)[2], want [2, t, ...] for the new tokens of 2 rows"},
		{func() error { return prefill([][]int32{{1}}) }, "kvq.Session.Prefill: first input (Int32)[1, 1], want [2, t, ...] for the new tokens of 2 rows"},
		{func() error { return prefill(nil) }, "kvq.Session.Prefill: input 0: want a value or a tensor, got nil"},
		{func() error { _, err := NewSession(testbackend.XLA(t), nil, nil, layersDecoder); return err }, "kvq.NewSession: want a plan of New, got none"},
		{func() error { _, err := NewBatch(testbackend.XLA(t), nil, &Plan{}, layersDecoder); return err }, "kvq.NewBatch: want a plan of New, got none"},
		{func() error { _, err := NewSession(testbackend.XLA(t), nil, s.Plan(), nil); return err }, "kvq: want a backend and a step of a model, got nil"},
		{func() error { _, err := NewSession(nil, nil, s.Plan(), layersDecoder); return err }, "kvq: want a backend and a step of a model, got nil"},
		{func() error { return prefill("text") }, "kvq.Session.Prefill: input 0: "},
		{func() error {
			_, err := s.PrefillPadded(ctx, []int32{0, 4}, [][]int32{{1, 2, 3}, {1, 2, 3}})
			return err
		},
			"kvq.Session.Prefill: padding of 4 tokens in row 1, want 0 to the 3 of the prompt"},
		{func() error { _, err := s.PrefillPadded(ctx, []int32{0}, [][]int32{{1, 2, 3}, {1, 2, 3}}); return err },
			"kvq.Session.Prefill: padding of 1 rows, want that of 2"},
		{func() error { return s.Crop(ctx, 1) }, "kvq.Session.Crop: 1 tokens, want 0 to the 0 that the cache holds"},
		{func() error { return s.Reorder(ctx, []int{0}) }, "kvq.Session.Reorder: 1 rows, the cache has 2"},
		{func() error { return s.Reorder(ctx, []int{0, 2}) }, "kvq.Session.Reorder: row 2, want 0 to 1"},
		{func() error { return s.Save(ctx, filepath.Join(t.TempDir(), "x")) }, "kvq.Session.Save: the cache is empty, want at least one token"},
		{func() error { return prefill([][]int32{{1, 2, 3}, {1, 2, 3}}) }, ""},
		{func() error { return prefill([][]int32{{1}, {1}}) }, "kvq.Session.Prefill: the cache holds 3 tokens, want none: Step adds more, Reset begins anew"},
		{func() error { // as while another goroutine steps
			s.Updating(true)
			defer s.Updating(false)
			_, err := s.Step(ctx, [][]int32{{1}, {1}})
			return err
		}, "kvq: another call has this cache"},
		{func() error { return s.Crop(ctx, 4) }, "kvq.Session.Crop: 4 tokens, want 0 to the 3 that the cache holds"},
		{func() error { return s.Crop(ctx, -1) }, "kvq.Session.Crop: -1 tokens, want 0 to the 3 that the cache holds"},
		{func() error { return generate(Generation{MaxTokens: -1}) }, "kvq.Generation.MaxTokens: want at least 1, got -1"},
		{func() error { return generate(Generation{Temperature: math.NaN()}) }, "kvq.Generation.Temperature: want above 0 and at most 1e+06 (for the most likely token, leave Sample off), got NaN"},
		{func() error { return generate(Generation{TopP: 2}) }, "kvq.Generation.TopP: want above 0 and at most 1, got 2"},
		{func() error { return generate(Generation{TopK: -1}) }, "kvq.Generation.TopK: want 0 (no limit) or more, got -1"},
		{func() error { return generate(Generation{Stop: []int32{3, -1}}) }, "kvq.Generation.Stop: want tokens of 0 or more, got -1"},
		{func() error { return generate(Generation{Block: 129}) }, "kvq.Generation.Block: want 0 (by time) to 128, got 129"},
		{func() error { return s.Crop(ctx, 1) }, ""},
		{func() error { return generate(Generation{}) }, "kvq.Session.Generate: nothing to go on from, want a Prefill, a Step or a Generate just before"},
		{func() error { s.Finalize(); _, err := s.Step(ctx, [][]int32{{1}, {1}}); return err }, "kvq.Session.Step: the session is finalized"},
	} {
		err := c.err()
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%v, want no error", err)
		case c.want == "":
		case err == nil || !strings.HasPrefix(err.Error(), c.want) || strings.Contains(err.Error(), "\n"):
			t.Errorf("%v, want %s", err, c.want)
		case !errors.Is(err, ErrInput):
			t.Errorf("%v is not ErrInput", err)
		}
	}
}

// A model that does not end its step, ends it twice, or has no logits, is an error that says so.
func TestSessionWatchesTheModel(t *testing.T) {
	ctx := context.Background()
	for _, c := range []struct {
		step Step
		want string
	}{
		{func(_ *model.Scope, c Cache, in []*Node) []*Node {
			appendTo(c, in[0])
			return nil
		}, "kvq.Nodes: a step of 2 tokens is under way, want Advance before"},
		{func(_ *model.Scope, c Cache, in []*Node) []*Node {
			for range 2 {
				appendTo(c, in[0])
				c.Advance()
			}
			return nil
		}, "kvq.Session: the model's step advanced the cache by 4 tokens, its first input has 2: (Int32)[1, 2]"},
	} {
		s, err := NewSession(testbackend.XLA(t), nil, decoderPlan(t, Config{}, 1, 16), c.step)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Prefill(ctx, [][]int32{{1, 2}}); err == nil || err.Error() != c.want {
			t.Errorf("%v, want %s", err, c.want)
		}
		s.Finalize()
	}
}

// appendTo appends made-up tokens to the layer of a cache of decoderPlan.
func appendTo(c Cache, ids *Node) {
	for i := range 1 {
		x := gx.Zeros(ids.Graph(), shapes.Make(dtypes.Float32, ids.Shape().Dim(0), 2, ids.Shape().Dim(1), 16))
		c.Layer(i).Append(x, x)
		c.Layer(i).Attend(x)
	}
}
