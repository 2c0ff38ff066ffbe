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
	}{
		{"4 bit", numbers.MinMax, 4, false, false},
		{"3 bit, keys per channel, rotated", numbers.MinMax, 3, true, true},
		{"5 bit symmetric", numbers.Symmetric, 5, false, false},
		{"int8", numbers.Int8, 8, false, false},
		{"float8", numbers.Float8, 8, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			format := func(keys bool) codes.Format {
				spec := numbers.Spec{Quantizer: c.quantizer, Bits: c.bits, Scales: numbers.ScaleFloat16, Keys: keys}
				return codes.New(spec, dim, 32, c.perChannel && keys, c.rotate)
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
