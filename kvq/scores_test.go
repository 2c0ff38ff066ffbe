package kvq_test

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"

	"github.com/kvqbook/kvqbook/internal/oracle"
	"github.com/kvqbook/kvqbook/internal/testlane"
	. "github.com/kvqbook/kvqbook/kvq"
)

// attentionCases are models and masks of steps that are not Llama's. Each runs over every cache.
// The first has all at once, and stands for the others outside of --all.
var attentionCases = []struct {
	name   string
	change func(s *Shape)
	masks  *testMasks // of the prompt and of the second token
	tree   bool       // the chunk is a tree
}{
	{name: "all at once", masks: &testMasks{visible: true, bias: true}, tree: true, change: func(s *Shape) {
		s.Attention = Attention{Scale: 0.3, SoftCap: 2, Slopes: []float64{0.5, 0.25, 0.125, 0}}
		s.ValueDim, s.Layout = s.HeadDim/2, BSHD
		// half of the suite's caches have two layers
		s.Attention.LayerWindows = []int{60, 7}[:s.Layers]
	}},
	{name: "scale", change: func(s *Shape) { s.Attention.Scale = 0.5 }},
	{name: "soft cap", change: func(s *Shape) { s.Attention.SoftCap = 1.5 }},
	{name: "slopes", change: func(s *Shape) { s.Attention.Slopes = ALiBiSlopes(suiteHeads) }},
	{name: "mask", masks: &testMasks{visible: true}},
	{name: "bias", masks: &testMasks{bias: true}},
	{name: "mask and bias of all rows and queries", masks: &testMasks{visible: true, bias: true, shared: true}},
	{name: "tree", tree: true},
	{name: "smaller values", change: func(s *Shape) { s.ValueDim = s.HeadDim / 2 }},
	{name: "larger values", change: func(s *Shape) { s.ValueDim = 2 * s.HeadDim }},
	{name: "GoMLX's layout", change: func(s *Shape) { s.Layout = BSHD }},
	{name: "windows of layers", change: func(s *Shape) {
		s.Layers, s.Attention.LayerWindows = 2, []int{7, 0}
	}},
	{name: "tree in a window", tree: true, change: func(s *Shape) { s.SlidingWindow = 4 }},
}

// attentionCaches are caches of every kind, as few as that takes; the rest of the suite's run in
// --all.
var attentionCaches = []string{"full precision", "quanto 4 bit", "preset balanced"}

// Every cache attends as the model does: to a prompt, with single tokens by every form of graph
// operations, and with a chunk. TestKernelEqualsGraph has the kernel.
func TestAttentionOfModels(t *testing.T) {
	for i, model := range attentionCases {
		t.Run(model.name, func(t *testing.T) {
			for _, c := range suiteCases(t) {
				t.Run(c.name, func(t *testing.T) {
					switch {
					case i > 0 || c.name != "full precision" && c.name != attentionCaches[1]:
						testlane.OnlyAll(t, "all at once, in full precision and in codes, stands for each")
					case c.name != "full precision":
						testlane.Slow(t, "full precision stands for all")
					}
					t.Parallel()
					c.attends(t, i)
				})
			}
		})
	}
}

// attends compares a prompt, single tokens and a chunk with the oracle.
func (c suiteCase) attends(t *testing.T, model int) {
	t.Helper()
	const prompt = 110
	shape, m := c.shape(2, prompt+20), attentionCases[model]
	if m.change != nil {
		m.change(&shape)
		if len(shape.Attention.LayerWindows) > 0 {
			shape.SlidingWindow = 0
		}
	}
	config := c.fitted()
	if shape.ValueDim > 0 && config.Quantized() {
		_, config.QGroupSizeValue = config.For(shape.ValueDim).GroupSizes()
	}
	r := &recording{suiteCase: c, session: newSession(t, newPlan(t, config, shape), makeInputs(3, shape, suiteHeads, prompt+20, 0, 9))}
	r.masks = m.masks
	r.prompt(prompt)
	r.requireAttention("prompt", prompt, func(layer int) oracle.Tensor { return r.uncached(layer, prompt) })
	for i, n := range []int{1, 1, suiteHeads, 1} {
		switch {
		case i == 1:
			r.masks = m.masks
		case n > 1 && m.tree:
			r.masks = &testMasks{tree: true, bias: m.masks != nil}
		default:
			r.masks = nil
		}
		before := r.held()
		r.step(n)
		// What is flushed at the start of a step is held as codes after it.
		if n == 1 {
			before = r.held()
		}
		r.requireAttention("step", n, func(layer int) oracle.Tensor { return r.expected(layer, n, before[layer]) })
	}
	if testlane.All() && r.config.Quantized() {
		tiles := &recording{suiteCase: c, session: newSession(t, r.plan.WithForm(Tiles), r.in)}
		tiles.slots, tiles.state = r.slots, r.state
		tiles.step(1)
		held := tiles.held()
		tiles.requireAttention("step in tiles", 1, func(layer int) oracle.Tensor { return tiles.expected(layer, 1, held[layer]) })
	}
}

// By hand from the paper: 2^-1 to 2^-8 for 8 heads; for 12 heads, the slopes of 8 and every second
// one of 16.
func TestALiBiSlopesByHand(t *testing.T) {
	root := math.Sqrt(0.5)
	eight := []float64{1. / 2, 1. / 4, 1. / 8, 1. / 16, 1. / 32, 1. / 64, 1. / 128, 1. / 256}
	for _, c := range []struct {
		heads int
		want  []float64
	}{
		{8, eight},
		{2, []float64{1. / 16, 1. / 256}},
		{12, append(slices.Clone(eight), root, root/2, root/4, root/8)},
	} {
		got := ALiBiSlopes(c.heads)
		if len(got) != len(c.want) {
			t.Fatalf("%d heads: %v, want %v", c.heads, got, c.want)
		}
		for i, w := range c.want {
			if math.Abs(got[i]-w) > 1e-12 {
				t.Errorf("%d heads: %v, want %v", c.heads, got, c.want)
				break
			}
		}
	}
}

// What no model has is refused, by its name.
func TestAttentionRefused(t *testing.T) {
	for _, c := range []struct {
		want   string
		change func(s *Shape)
	}{
		{"kvq.Attention.Scale: want a finite number", func(s *Shape) { s.Attention.Scale = math.NaN() }},
		{"kvq.Attention.SoftCap: want 0 (none) or more, got -1", func(s *Shape) { s.Attention.SoftCap = -1 }},
		{"kvq.Attention.SoftCap", func(s *Shape) { s.Attention.SoftCap = math.Inf(1) }},
		{"a multiple of the 2 key/value heads, got 3", func(s *Shape) { s.Attention.Slopes = []float64{1, 2, 3} }},
		{"kvq.Attention.LayerWindows: want one for each of 2 layers, got 3", func(s *Shape) { s.Attention.LayerWindows = []int{1, 2, 3} }},
		{"want 0 (no limit) or more, got -4 for layer 1", func(s *Shape) { s.Attention.LayerWindows = []int{0, -4} }},
		{"want SlidingWindow 0 beside it, got 5", func(s *Shape) { s.Attention.LayerWindows, s.SlidingWindow = []int{0, 4}, 5 }},
		{"kvq.Attention.Cross: want no slopes and no windows", func(s *Shape) { s.Attention.Cross, s.SlidingWindow = true, 5 }},
		{"kvq.Attention.Cross: want no slopes and no windows", func(s *Shape) { s.Attention.Cross, s.Attention.Slopes = true, []float64{1, 1} }},
		{"kvq.Shape.ValueDim: want 0 (HeadDim) or more, got -8", func(s *Shape) { s.ValueDim = -8 }},
		{`kvq.Shape.Layout: want "BHSD" or "BSHD", got "BDSH"`, func(s *Shape) { s.Layout = "BDSH" }},
		{"got -1 for head 1", func(s *Shape) { s.Attention.Slopes = []float64{1, -1} }},
	} {
		shape := Shape{Layers: 2, Batch: 1, KVHeads: 2, HeadDim: 64, Capacity: 64, DType: dtypes.Float32}
		c.change(&shape)
		if _, err := New(Tutorial(), shape); err == nil || !strings.Contains(err.Error(), c.want) || !errors.Is(err, ErrInput) {
			t.Errorf("%v, want an input error with %q", err, c.want)
		}
	}
}

// A plan does not change with the shape it was made from.
func TestPlanKeepsItsShape(t *testing.T) {
	slopes := []float64{1, 2}
	plan := newPlan(t, Config{}, Shape{Layers: 1, Batch: 1, KVHeads: 2, HeadDim: 8, Capacity: 8, DType: dtypes.Float32, Attention: Attention{Slopes: slopes}})
	slopes[0] = 7
	if got := plan.Shape().Attention.Slopes[0]; got != 1 {
		t.Errorf("slope %v, want 1", got)
	}
}

// A saved cache has the model's attention with it, and goes on as before.
func TestFileHasAttention(t *testing.T) {
	shape := Shape{Layers: 2, Batch: 1, KVHeads: 2, HeadDim: 8, ValueDim: 4, Capacity: 16, DType: dtypes.Float32, Layout: BSHD}
	shape.Attention = Attention{Scale: 0.5, SoftCap: 30, Slopes: []float64{1, 0.5}, LayerWindows: []int{4, 0}}
	plan := newPlan(t, Config{}, shape)
	s := newSession(t, plan, makeInputs(1, shape, 2, 16, 0))
	s.empty()
	path := filepath.Join(t.TempDir(), "cache")
	if err := Save(path, plan, s.state); err != nil {
		t.Fatal(err)
	}
	loaded, _, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := loaded.Shape(); !got.Equal(shape) {
		t.Errorf("%+v, want %+v", got, shape)
	}
	if got := loaded.Shape(); got.Equal(Shape{Layers: 2, Batch: 1, KVHeads: 2, HeadDim: 8, ValueDim: 4, Capacity: 16, DType: dtypes.Float32, Layout: BSHD}) {
		t.Error("a shape without attention is said to be equal")
	}
}

// What was always so is written as it always was: older programs read such files.
func TestFileOfPlainShape(t *testing.T) {
	shape := Shape{Layers: 1, Batch: 1, KVHeads: 1, HeadDim: 8, Capacity: 16, DType: dtypes.Float32, ValueDim: 8, Layout: BHSD}
	plan := newPlan(t, Config{}, shape)
	s := newSession(t, plan, makeInputs(1, shape, 1, 16, 0))
	s.empty()
	path := filepath.Join(t.TempDir(), "cache")
	if err := Save(path, plan, s.state); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := `{\"Layers\":1,\"Batch\":1,\"KVHeads\":1,\"HeadDim\":8,\"Capacity\":16,\"SlidingWindow\":0,\"DType\":\"F32\"}`
	if !strings.Contains(string(data), want) {
		t.Errorf("the header has no %s: %.700q", want, data)
	}
}
