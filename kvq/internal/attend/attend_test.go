package attend_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/oracle"
	"github.com/kvqbook/kvqbook/internal/testbackend"
	. "github.com/kvqbook/kvqbook/kvq/internal/attend"
	"github.com/kvqbook/kvqbook/kvq/internal/codes"
	"github.com/kvqbook/kvqbook/kvq/internal/numbers"
)

// A query sees known tokens up to its own, and of these the newest ones that the sliding window
// holds.
func TestMaskByHand(t *testing.T) {
	const no = float32(Masked)
	for _, c := range []struct {
		window int
		want   []float32 // of positions 1 and 3, over tokens -1, 0, 1, 2, 3, 4
	}{
		{0, []float32{no, 0, 0, no, no, no, no, 0, 0, 0, 0, no}},
		{2, []float32{no, 0, 0, no, no, no, no, no, no, 0, 0, no}}, // 0 and 1; 2 and 3
	} {
		exec := MustNewExec(testbackend.XLA(t), func(index, position *Node) *Node { return Mask(index, position, c.window) })
		got := tensors.MustCopyFlatData[float32](exec.MustCall([][]int32{{-1, 0, 1, 2, 3, 4}}, [][]int32{{1, 3}})[0])
		exec.Finalize()
		if !slices.Equal(got, c.want) {
			t.Errorf("window %d: %v, want %v", c.window, got, c.want)
		}
	}
}

// A row of nothing but padding gives a finite average, no NaN.
func TestNothingToSeeIsFinite(t *testing.T) {
	exec := MustNewExec(testbackend.XLA(t), func(x *Node) *Node {
		q := Reshape(x, 1, 1, 1, 4)
		tokens := gx.BroadcastToDims(q, 1, 1, 3, 4)
		none := gx.Fill(x.Graph(), shapes.Make(dtypes.Float32, 1, 1, 3), Masked)
		return Scores{Scale: 1}.Exact(q, tokens, tokens, Seen{Mask: none}).Result()
	})
	defer exec.Finalize()
	x := []float32{1, 2, 3, 4}
	if got := tensors.MustCopyFlatData[float32](exec.MustCall(x)[0]); !slices.Equal(got, x) {
		t.Errorf("%v, want the average %v", got, x)
	}
}

// normal gives numbers of a normal distribution.
func normal(rng *rand.Rand, dims ...int) oracle.Tensor {
	x := oracle.NewTensor(dims...)
	for i := range x.Data {
		x.Data[i] = float64(float32(rng.NormFloat64()))
	}
	return x
}

func tensorOf(x oracle.Tensor) *tensors.Tensor {
	flat := make([]float32, len(x.Data))
	for i, v := range x.Data {
		flat[i] = float32(v)
	}
	return tensors.FromFlatDataAndDimensions(flat, x.Shape...)
}

// A prompt attends to itself as the oracle says; and parts of the tokens, merged, are the whole.
func TestPromptAndPartsAreTheOracles(t *testing.T) {
	const b, h, k, n, d = 2, 6, 2, 24, 16
	rng := rand.New(rand.NewPCG(1, 2))
	q, keys, values := normal(rng, b, h, n, d), normal(rng, b, k, n, d), normal(rng, b, k, n, d)
	start := []int{0, 5}
	for _, window := range []int{0, 7} {
		exec := MustNewExec(testbackend.XLA(t), func(q, keys, values, start *Node) []*Node {
			index := TokenIndex(start, gx.Scalar(q.Graph(), dtypes.Int32, 0), n)
			scores := Scores{Scale: 0.25} // 1/sqrt(d)
			whole := scores.Prompt(q, keys, values, index, View{Position: index, Window: window})
			folded := FoldQueries(q, k, scores.Scale)
			part := func(from, to int) Partial {
				of := func(x *Node) *Node { return Slice(x, AxisRange(), AxisRange(), AxisRange(from, to)) }
				mask := Mask(Slice(index, AxisRange(), AxisRange(from, to)), index, window)
				return scores.Exact(folded, of(keys), of(values), Seen{Mask: mask})
			}
			merged := part(0, 9).Merge(part(9, 10)).Merge(part(10, n))
			return []*Node{whole, UnfoldQueries(merged.Result(), q)}
		})
		out := exec.MustCall(tensorOf(q), tensorOf(keys), tensorOf(values), []int32{0, 5})
		exec.Finalize()
		want := oracle.Attention(q, keys, values, start, window)
		for i, name := range []string{"prompt", "merged parts"} {
			got := tensors.MustCopyFlatData[float32](out[i])
			for at, w := range want.Data {
				row, slot := at/(h*n*d), at/d%n
				if slot < start[row] {
					continue // padding
				}
				if diff := math.Abs(float64(got[at]) - w); !(diff <= 1e-5) {
					t.Fatalf("window %d, %s: element %d is %v, want %v", window, name, at, got[at], w)
				}
			}
		}
	}
}

// A prompt that is too long for one block of scores is what the oracle says, with all that scores
// can be made of: a bias that differs by head, a mask in the place of causality, branches.
func TestPromptInBlocks(t *testing.T) {
	const h, k, n, d, e, window = 2, 1, 2*PromptBlock + 9, 4, 3, 300
	rng := rand.New(rand.NewPCG(5, 6))
	q, keys, values := normal(rng, 1, h, n, d), normal(rng, 1, k, n, d), normal(rng, 1, k, n, e)
	bias, start := normal(rng, 1, h, n, n), 7
	branch := func(i, j int) bool {
		for i > j {
			i = (i - 1) / 2
		}
		return i == j
	}
	depth := func(i int) (steps int) {
		for ; i > 0; i = (i - 1) / 2 {
			steps++
		}
		return steps
	}
	var flat []bool
	for i := range n {
		for j := range n {
			flat = append(flat, branch(i, j))
		}
	}
	tree := tensors.FromFlatDataAndDimensions(flat, 1, n, n)
	scores := Scores{Scale: 0.5, SoftCap: 2, Slopes: []float64{0.02, 0}}
	exec := MustNewExec(testbackend.XLA(t), func(q, keys, values, start, bias, tree *Node) []*Node {
		index := TokenIndex(start, gx.Scalar(q.Graph(), dtypes.Int32, 0), n)
		view := View{Position: index, Window: window, Distances: true, Added: bias}
		all := view
		all.All = true
		zero := TokenIndex(gx.ZerosLike(start), gx.Scalar(q.Graph(), dtypes.Int32, 0), n)
		branches := View{Position: zero, Window: 6, Distances: true}.Branch(tree)
		return []*Node{
			scores.Prompt(q, keys, values, index, view),
			scores.Prompt(q, keys, values, index, all),
			scores.Prompt(q, keys, values, zero, branches),
		}
	})
	out := exec.MustCall(tensorOf(q), tensorOf(keys), tensorOf(values), []int32{int32(start)}, tensorOf(bias), tree)
	exec.Finalize()
	common := oracle.Scores{Start: []int{start}, Window: window, Scale: 0.5, SoftCap: 2, Slopes: scores.Slopes}
	common.Bias = func(_, head, query, key int) float64 { return bias.Row(0, head, query)[key-start] }
	all := common
	all.Sees = func(_, _, _, _ int) bool { return true }
	place := func(_, slot int) int { return depth(slot) }
	branches := oracle.Scores{Start: []int{0}, Scale: 0.5, SoftCap: 2, Slopes: scores.Slopes, Place: place}
	branches.Sees = func(_, _, query, key int) bool { return branch(query, key) && depth(query)-depth(key) < 6 }
	for i, c := range []struct {
		name  string
		want  oracle.Scores
		first int // slot of the first token
	}{{"bias", common, start}, {"mask", all, start}, {"branches", branches, 0}} {
		got, want := tensors.MustCopyFlatData[float32](out[i]), c.want.Attention(q, keys, values)
		for at, w := range want.Data {
			if at/e%n < c.first {
				continue // padding
			}
			if diff := math.Abs(float64(got[at]) - w); !(diff <= 1e-5) {
				t.Fatalf("%s: element %d is %v, want %v", c.name, at, got[at], w)
			}
		}
	}
}

// The forms of graph operations agree for one token, over codes of every layout: several groups,
// planes and rotations, slots that are empty or masked.
func TestFormsAgree(t *testing.T) {
	const b, k, queries, dim, blocks = 2, 2, 3, 64, 4
	for _, c := range []struct {
		name       string
		quantizer  *numbers.Quantizer
		bits       int
		perChannel bool
		rotate     bool
		tokens     bool // scales of tokens
		all        bool // all that scores can be made of, and a mask for each head
	}{
		{"4 bit", numbers.MinMax, 4, false, false, false, true},
		{"3 bit, keys per channel, rotated", numbers.MinMax, 3, true, true, false, false},
		{"2 bit, keys per channel and token", numbers.Unbiased, 2, true, true, true, true},
		{"5 bit symmetric", numbers.Symmetric, 5, false, false, false, false},
		{"int8", numbers.Int8, 8, false, false, false, true},
		{"float8", numbers.Float8, 8, false, false, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			format := func(keys bool) codes.Format {
				spec := numbers.Spec{Quantizer: c.quantizer, Bits: c.bits, Scales: numbers.ScaleFloat16, Keys: keys}
				f := codes.New(spec, dim, 32, c.perChannel && keys, c.rotate)
				f.TokenScales = c.tokens && keys
				return f
			}
			key, value := format(true), format(false)
			exec := MustNewExec(testbackend.XLA(t), func(keys, values, q *Node) []*Node {
				g := q.Graph()
				slots := blocks * codes.BlockTokens
				index := Iota(g, shapes.Make(dtypes.Int32, b, slots), 1)
				coded := Coded{
					Key: key, Value: value, Keys: key.Encode(keys, nil), Values: value.Encode(values, nil),
					Seen:   Seen{Mask: Mask(index, gx.Fill(g, shapes.Make(dtypes.Int32, b, 1), 100), 90)},
					Used:   gx.Fill(g, shapes.Make(dtypes.Int32, b), slots),
					Length: gx.Scalar(g, dtypes.Int32, slots), TileBlocks: TileBlocks(b*k, 1, blocks), Functions: &gx.Functions{},
				}
				if c.all {
					coded.Scores = Scores{SoftCap: 2, Slopes: []float64{0, 0.5, 0.25, 0.125, 1, 0.01}}
					view := View{Position: gx.Fill(g, shapes.Make(dtypes.Int32, b, 1), 100), Window: 90, Distances: true}
					view.Added = Sin(ConvertDType(Iota(g, shapes.Make(dtypes.Int32, 1, k*queries, 1, slots), 3), dtypes.Float32))
					heads := ConvertDType(Iota(g, view.Added.Shape(), 1), dtypes.Float32)
					view.Added = Mul(view.Added, heads)
					coded.Seen = view.Of(index)
				}
				coded.TileBlocks = 3 // the last tile overlaps the one before it
				words, tiles := coded.Attend(Words, q), coded.Attend(Tiles, q)
				return []*Node{words.Max, words.Sum, words.Out, tiles.Max, tiles.Sum, tiles.Out}
			})
			defer exec.Finalize()
			rng := rand.New(rand.NewPCG(3, uint64(c.bits)))
			slots := blocks * codes.BlockTokens
			out := exec.MustCall(tensorOf(normal(rng, b, k, slots, dim)), tensorOf(normal(rng, b, k, slots, dim)), tensorOf(normal(rng, b, k, queries, dim)))
			for i, name := range []string{"largest score", "sum of weights", "output"} {
				words, tiles := tensors.MustCopyFlatData[float32](out[i]), tensors.MustCopyFlatData[float32](out[3+i])
				for at, w := range tiles {
					if diff := math.Abs(float64(words[at] - w)); !(diff <= 1e-4*max(1, math.Abs(float64(w)))) {
						t.Fatalf("%s %d: %v over words, %v tile by tile", name, at, words[at], w)
					}
				}
			}
		})
	}
}

// Tiles are whole units of blocks, and no more than there are.
func TestTileBlocks(t *testing.T) {
	for _, c := range []struct{ heads, unit, n, want int }{
		{3, 1, 1000, 85},  // 8192 rows / (3 heads x 32 tokens)
		{3, 2, 1000, 84},  // in pairs of blocks
		{3, 2, 10, 10},    // all there are
		{4096, 2, 100, 2}, // one unit at least
	} {
		if got := TileBlocks(c.heads, c.unit, c.n); got != c.want {
			t.Errorf("%s: %d, want %d", fmt.Sprint(c), got, c.want)
		}
	}
}
