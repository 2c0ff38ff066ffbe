package kvq_test

import (
	"context"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/kvqbook/kvqbook/internal/testbackend"
	"github.com/kvqbook/kvqbook/internal/testlane"
	. "github.com/kvqbook/kvqbook/kvq"
)

// classroomCaches are one of each kind.
func classroomCaches() map[string]Config {
	return map[string]Config{
		"full precision": {},
		"quanto":         {Backend: Quanto, NBits: 4, QGroupSize: 16, ResidualLength: 8},
		"blocks":         {Backend: Blocks, NBits: 8, QGroupSize: 16, QGroupSizeKey: 32, AxisKey: PerChannel, ResidualLength: 4, Sinks: 2},
		"few bits": {Backend: Blocks, NBitsKey: 3, NBitsValue: 2, QGroupSize: 16, QGroupSizeKey: 32, AxisKey: PerChannel, ResidualLength: 4, Sinks: 2,
			RotateKeys: true, RotateValues: true, QuantizerKey: Unbiased, QuantizerValue: Unbiased, Scales: Scale8, TokenScales: true, FeedbackKey: FeedbackQueries},
	}
}

// request is a prompt, and how many tokens are wanted after it.
type request struct {
	prompt []int32
	more   int
	tokens []int32 // made so far
	row    int
}

// makeRequests are prompts of different lengths, of longest tokens at most.
func makeRequests(n, longest int) []*request {
	rng := rand.New(rand.NewPCG(3, 4))
	var out []*request
	for range n {
		r := &request{more: 1 + rng.IntN(longest)}
		for range 1 + rng.IntN(longest) {
			r.prompt = append(r.prompt, rng.Int32N(decoderVocabulary))
		}
		out = append(out, r)
	}
	return out
}

// alone generates for a request in a session of its own, as long as that lasts.
func (r *request) alone(t *testing.T, s *Session) []int32 {
	t.Helper()
	ctx := context.Background()
	s.Reset()
	tokens, start := PadLeft([][]int32{r.prompt}, 0)
	if _, err := s.PrefillPadded(ctx, start, tokens); err != nil {
		t.Fatal(err)
	}
	made, err := s.Generate(ctx, Generation{MaxTokens: r.more})
	if err != nil {
		t.Fatal(err)
	}
	return made[0]
}

// TestClassroom serves a dozen requests over a batch of four rows, by a loop on the device and step
// by step: each gets the tokens that it gets alone, whoever sits beside it.
func TestClassroom(t *testing.T) {
	testlane.OnlyAll(t, "compiles models; TestClassroomOnPureGo and ExampleBatch go the same way, and TestRagged looks closer")
	testClassroom(t, testbackend.XLA(t))
}

// TestClassroomOnPureGo is the same where nothing is compiled.
func TestClassroomOnPureGo(t *testing.T) { testClassroom(t, testbackend.Go(t)) }

func testClassroom(t *testing.T, backend compute.Backend) {
	for name, config := range classroomCaches() {
		t.Run(name, func(t *testing.T) {
			longest, capacity := 16, 64
			if config.Quantized() {
				longest, capacity = 45, 16 // the cache has to grow
			}
			plan := decoderPlan(t, config, 1, capacity)
			s, err := NewSession(backend, decoderStore(), plan, layersDecoder)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Finalize()
			shape := plan.Shape()
			shape.Batch, shape.OwnLengths = 4, true
			b, err := NewBatch(backend, decoderStore(), newPlan(t, config, shape), layersDecoder)
			if err != nil {
				t.Fatal(err)
			}
			defer b.Finalize()
			serves := []func(t *testing.T, b *Batch, rows []*request){onDevice}
			if config.Quantized() {
				serves = append(serves, stepByStep)
			}
			for i, serve := range serves {
				requests := makeRequests(12, longest)
				classroom(t, b, slices.Clone(requests), serve)
				for j, r := range requests {
					if want := r.alone(t, s); !slices.Equal(r.tokens, want) {
						t.Errorf("way %d, request %d in row %d, prompt of %d: got %v, alone %v", i, j, r.row, len(r.prompt), r.tokens, want)
					}
				}
			}
			if !config.Quantized() {
				requireStop(t, b, s)
			}
			if grown := b.Plan().Shape().Capacity; (grown > shape.Capacity) != config.Quantized() {
				t.Errorf("the cache began with a capacity of %d and has %d now", shape.Capacity, grown)
			}
			if m, err := b.Memory(); err != nil || m != b.Plan().Memory() {
				t.Errorf("measured %+v (error %v), planned %+v", m, err, b.Plan().Memory())
			}
		})
	}
}

// requireStop generates for two rows until one of them makes a token that ends it.
func requireStop(t *testing.T, b *Batch, s *Session) {
	t.Helper()
	ctx := context.Background()
	var alone [2][]int32
	newest := []int32{-1, -1, -1, -1}
	for row, r := range makeRequests(2, 16) {
		r.more = 20
		alone[row] = r.alone(t, s)
		tokens, start := PadLeft([][]int32{r.prompt}, 0)
		out, err := b.Insert(ctx, []int{row}, start, tokens)
		if err != nil {
			t.Fatal(err)
		}
		newest[row] = mostLikely(t, out[0])[0]
	}
	stop := alone[1][7]
	first := 20 // of the new tokens that the loop makes
	for _, tokens := range alone {
		if i := slices.Index(tokens[1:], stop); i >= 0 {
			first = min(first, i)
		}
	}
	before := b.Length(0)
	made, ended, err := b.Generate(ctx, newest, Generation{MaxTokens: 19, Stop: []int32{stop}})
	if err != nil {
		t.Fatal(err)
	}
	for row, tokens := range alone {
		if !slices.Equal(made[row], tokens[1:first+2]) || ended[row] != (tokens[first+1] == stop) {
			t.Errorf("row %d: got %v (ended: %v), wanted %v up to the %d that ends a row", row, made[row], ended[row], tokens[1:first+2], stop)
		}
	}
	if len(made[2]) != 0 || ended[2] || b.Length(0) != before+first+1 {
		t.Errorf("a row that rests: %v (ended: %v); row 0 had %d tokens and has %d", made[2], ended[2], before, b.Length(0))
	}
	if made, _, err := b.Generate(ctx, []int32{-1, -1, -1, -1}, Generation{}); err != nil || len(made[0]) != 0 {
		t.Errorf("all rows rest: %v, %v", made, err)
	}
}

// left is how many tokens a request still wants.
func (r *request) left() int {
	if r == nil {
		return 0
	}
	return r.more - len(r.tokens)
}

// classroom works requests off: a row that is done is given to the next one at once.
func classroom(t *testing.T, b *Batch, waiting []*request, serve func(t *testing.T, b *Batch, rows []*request)) {
	t.Helper()
	rows := make([]*request, b.Plan().Shape().Batch)
	for {
		for row, r := range rows {
			if r.left() > 0 || len(waiting) == 0 {
				continue
			}
			tokens, start := PadLeft([][]int32{waiting[0].prompt}, 0)
			out, err := b.Insert(context.Background(), []int{row}, start, tokens)
			if err != nil {
				t.Fatal(err)
			}
			rows[row], waiting[0].row, waiting = waiting[0], row, waiting[1:]
			rows[row].tokens = mostLikely(t, out[0])
		}
		if !slices.ContainsFunc(rows, func(r *request) bool { return r.left() > 0 }) {
			if len(waiting) == 0 {
				return
			}
			continue
		}
		serve(t, b, rows)
		for row, r := range rows {
			if r != nil && b.Length(row) != len(r.prompt)+len(r.tokens)-1 {
				t.Fatalf("row %d has %d tokens, wanted those of the prompt and all made but the newest: %d", row, b.Length(row), len(r.prompt)+len(r.tokens)-1)
			}
		}
	}
}

// onDevice makes tokens until one request is done.
func onDevice(t *testing.T, b *Batch, rows []*request) {
	t.Helper()
	newest, most := make([]int32, len(rows)), 1000
	for row, r := range rows {
		newest[row] = -1
		if n := r.left(); n > 0 {
			newest[row], most = r.tokens[len(r.tokens)-1], min(most, n)
		}
	}
	made, ended, err := b.Generate(context.Background(), newest, Generation{MaxTokens: most})
	if err != nil {
		t.Fatal(err)
	}
	for row, tokens := range made {
		if want := most; newest[row] < 0 && len(tokens) > 0 || newest[row] >= 0 && len(tokens) != want || ended[row] {
			t.Fatalf("row %d: %d tokens (ended: %v), wanted %d for rows that go on", row, len(tokens), ended[row], want)
		}
		if newest[row] >= 0 {
			rows[row].tokens = append(rows[row].tokens, tokens...)
		}
	}
}

// stepByStep makes one token.
func stepByStep(t *testing.T, b *Batch, rows []*request) {
	t.Helper()
	counts, newest := make([]int, len(rows)), make([][]int32, len(rows))
	for row, r := range rows {
		newest[row] = []int32{0}
		if r.left() > 0 {
			counts[row], newest[row][0] = 1, r.tokens[len(r.tokens)-1]
		}
	}
	out, err := b.Step(context.Background(), counts, newest)
	if err != nil {
		t.Fatal(err)
	}
	for row, token := range mostLikely(t, out[0]) {
		if counts[row] > 0 {
			rows[row].tokens = append(rows[row].tokens, token)
		}
	}
}

// mostLikely is the token of the largest of the last column's logits, [B, t, V], of each row.
func mostLikely(t *testing.T, logits *tensors.Tensor) (tokens []int32) {
	t.Helper()
	flat, err := tensors.CopyFlatData[float32](logits)
	if err != nil {
		t.Fatal(err)
	}
	d := logits.Shape().Dimensions
	for row := range d[0] {
		last := flat[((row+1)*d[1]-1)*d[2] : (row+1)*d[1]*d[2]]
		tokens = append(tokens, int32(slices.Index(last, slices.Max(last))))
	}
	return tokens
}

// Wrong uses are errors of one line, and leave the batch as it is.
func TestBatchRefuses(t *testing.T) {
	ctx := context.Background()
	plan := decoderPlan(t, Config{}, 3, 16)
	if _, err := NewBatch(testbackend.XLA(t), nil, plan, layersDecoder); err == nil || !strings.Contains(err.Error(), "OwnLengths") {
		t.Errorf("a plan whose rows grow together: %v", err)
	}
	shape := plan.Shape()
	shape.OwnLengths = true
	own := newPlan(t, Config{}, shape)
	if _, err := NewSession(testbackend.XLA(t), nil, own, layersDecoder); err == nil || !strings.Contains(err.Error(), "NewBatch") {
		t.Errorf("a session with rows of their own lengths: %v", err)
	}
	b, err := NewBatch(testbackend.XLA(t), nil, own, layersDecoder)
	if err != nil {
		t.Fatal(err)
	}
	token := [][]int32{{1}, {2}, {3}}
	for _, c := range []struct {
		want string
		do   func() error
	}{
		{"row 3, want 0 to 2", func() error { return b.Reset(ctx, 3) }},
		{"row 1 comes twice", func() error { _, err := b.Insert(ctx, []int{1, 1}, nil, [][]int32{{1}, {2}}); return err }},
		{"no rows", func() error { _, err := b.Insert(ctx, nil, nil); return err }},
		{"want [2, t, ...]", func() error { _, err := b.Insert(ctx, []int{0, 1}, nil, [][]int32{{1}}); return err }},
		{"padding of 1 rows", func() error { _, err := b.Insert(ctx, []int{0, 1}, []int32{0}, [][]int32{{1}, {2}}); return err }},
		{"padding of 2 tokens", func() error { _, err := b.Insert(ctx, []int{0}, []int32{2}, [][]int32{{1}}); return err }},
		{"tokens of 2 rows", func() error { _, err := b.Step(ctx, []int{1, 1}, token); return err }},
		{"2 tokens for row 0", func() error { _, err := b.Step(ctx, []int{2, 1, 1}, token); return err }},
		{"want [3, t, ...]", func() error { _, err := b.Step(ctx, []int{1, 1, 1}, [][]int32{{1}}); return err }},
		{"1 tokens of row 2, want 0 to the 0", func() error { return b.Crop(ctx, []int{0, 0, 1}) }},
		{"tokens of 1 rows", func() error { return b.Crop(ctx, []int{0}) }},
		{"newest tokens of 1 rows", func() error { _, _, err := b.Generate(ctx, []int32{1}, Generation{}); return err }},
		{"want at least 1, got -1", func() error { _, _, err := b.Generate(ctx, []int32{1, 1, 1}, Generation{MaxTokens: -1}); return err }},
		{"finalized", func() error { b.Finalize(); b.Finalize(); return b.Reset(ctx, 0) }},
	} {
		if err := c.do(); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("got %v, want one line with %q", err, c.want)
		}
	}
}

// What a graph cannot be built of is said when it is built.
func TestRaggedRefuses(t *testing.T) {
	shape := Shape{Layers: 1, Batch: 2, KVHeads: 1, HeadDim: 16, Capacity: 8, DType: dtypes.Float32}
	together := newPlan(t, Config{}, shape)
	shape.OwnLengths = true
	own := newPlan(t, Config{}, shape)
	shape.Capacity = 9
	larger := newPlan(t, Config{}, shape)
	quantized := newPlan(t, Config{Backend: Quanto, NBits: 4, QGroupSize: 16, ResidualLength: 4}, own.Shape())
	i32 := func(g *Graph, n int) *Node { return Zeros(g, shapes.Make(dtypes.Int32, n)) }
	empty := func(g *Graph, p *Plan) Cache { return p.From(p.Init(i32(g, p.Shape().Batch)).Nodes()) }
	step := func(c Cache, g *Graph) {
		x := Zeros(g, shapes.Make(dtypes.Float32, 2, 1, 1, 16))
		c.Layer(0).Append(x, x)
	}
	for _, c := range []struct {
		want  string
		build func(g *Graph)
	}{
		{"kvq.NewTokens: want a plan with Shape.OwnLengths", func(g *Graph) { empty(g, together).NewTokens(i32(g, 2)) }},
		{"kvq.Reset: want a plan with Shape.OwnLengths", func(g *Graph) { empty(g, together).Reset(ConvertDType(i32(g, 2), dtypes.Bool)) }},
		{"kvq.Insert: want a plan with Shape.OwnLengths", func(g *Graph) { empty(g, together).Insert(i32(g, 2), empty(g, own)) }},
		{"want int32 or bool [2]", func(g *Graph) { empty(g, own).NewTokens(i32(g, 3)) }},
		{"want int32 or bool [2]", func(g *Graph) { empty(g, own).NewTokens(ConvertDType(i32(g, 2), dtypes.Float32)) }},
		{"the cache starts in this step", func(g *Graph) { own.Init(i32(g, 2)).NewTokens(i32(g, 2)) }},
		{"kvq.NewTokens: a step of 1 tokens is under way", func(g *Graph) { c := empty(g, own); step(c, g); c.NewTokens(i32(g, 2)) }},
		{"kvq.Reset: a step of 1 tokens is under way", func(g *Graph) { c := empty(g, own); step(c, g); c.Reset(ConvertDType(i32(g, 2), dtypes.Bool)) }},
		{"kvq.Insert: a step of 1 tokens is under way", func(g *Graph) { c := empty(g, own); step(c, g); c.Insert(i32(g, 2), empty(g, own)) }},
		{"want bool [2]", func(g *Graph) { empty(g, own).Reset(i32(g, 2)) }},
		{"want int32 [2]: a place", func(g *Graph) { empty(g, own).Insert(i32(g, 1), empty(g, own)) }},
		{"a smaller Capacity at most", func(g *Graph) { empty(g, own).Insert(i32(g, 2), empty(g, larger)) }},
		{"got those of a quantized one", func(g *Graph) { empty(g, own).Insert(i32(g, 2), empty(g, quantized)) }},
		{"got those of a full-precision one", func(g *Graph) { empty(g, quantized).Insert(i32(g, 2), empty(g, own)) }},
	} {
		exec := MustNewExec(testbackend.XLA(t), func(x *Node) *Node {
			c.build(x.Graph())
			return x
		})
		if _, err := exec.Exec(int32(0)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %q", err, c.want)
		}
	}
}
