package attend

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

	"github.com/kvqbook/kvqbook/internal/gpu"
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/oracle"
	"github.com/kvqbook/kvqbook/internal/testbackend"
)

func TestFuses(t *testing.T) {
	shape := func(heads, tokens, dim int) shapes.Shape {
		return shapes.Make(dtypes.Float16, 2, heads, tokens, dim)
	}
	of := func(tokens, dim int) PromptQuery {
		return PromptQuery{
			Device: gpu.Device{Platform: "cuda", Major: 9}, Devices: 1, Backend: true,
			Queries: shape(8, tokens, dim), Keys: shape(2, tokens, dim), Values: shape(2, tokens, dim),
		}
	}
	with := func(change func(q *PromptQuery)) PromptQuery {
		q := of(512, 128)
		change(&q)
		return q
	}
	plain := Scores{Scale: 0.1}
	for _, c := range []struct {
		name   string
		scores Scores
		query  PromptQuery
		want   bool
	}{
		{"a prompt", plain, of(512, 128), true},
		{"a short one", plain, of(FusedMinTokens-1, 128), false},
		{"the shortest", plain, of(FusedMinTokens, 64), true},
		{"wide heads", plain, of(512, 136), false},
		{"an odd head dimension", plain, of(512, 60), false},
		{"a backend without the call", plain, with(func(q *PromptQuery) { q.Backend = false }), false},
		{"a CPU", plain, with(func(q *PromptQuery) { q.Device = gpu.Device{Platform: "cpu"} }), false},
		{"an old GPU", plain, with(func(q *PromptQuery) { q.Device.Major = 7 }), false},
		{"two devices", plain, with(func(q *PromptQuery) { q.Devices = 2 }), false},
		{"float32", plain, with(func(q *PromptQuery) { q.Queries.DType = dtypes.Float32 }), false},
		{"other keys", plain, with(func(q *PromptQuery) { q.Keys.DType = dtypes.BFloat16 }), false},
		{"shorter values", plain, with(func(q *PromptQuery) { q.Values = shape(2, 512, 64) }), false},
		{"more keys", plain, with(func(q *PromptQuery) { q.Keys = shape(2, 600, 128) }), false},
		{"a window", plain, with(func(q *PromptQuery) { q.Window = 511 }), false},
		{"a window that holds all", plain, with(func(q *PromptQuery) { q.Window = 512 }), true},
		{"masks", plain, with(func(q *PromptQuery) { q.Other = true }), false},
		{"capped scores", Scores{Scale: 0.1, SoftCap: 30}, of(512, 128), false},
		{"slopes", Scores{Scale: 0.1, Slopes: make([]float64, 8)}, of(512, 128), false},
	} {
		if got := c.scores.Fuses(c.query); got != c.want {
			t.Errorf("%s: fuses %v, want %v", c.name, got, c.want)
		}
	}
}

// Tokens come to the front of their rows in their order, and go back to where they were.
func TestMoveTokens(t *testing.T) {
	for _, start := range [][]int32{{0}, {2}, {4}, {0, 3}, {1, 0, 4}} {
		const tokens = 5
		exec := MustNewExec(testbackend.XLA(t), func(x, start *Node) []*Node {
			front := moveTokens(x, start, false)
			return []*Node{front, moveTokens(front, start, true)}
		})
		x := tensors.FromShape(shapes.Make(dtypes.Float32, len(start), tokens, 1, 1))
		tensors.MustMutableFlatData(x, func(flat []float32) {
			for i := range flat {
				flat[i] = float32(i + 1)
			}
		})
		out := exec.MustCall(x, start)
		exec.Finalize()
		first, back := tensors.MustCopyFlatData[float32](out[0]), tensors.MustCopyFlatData[float32](out[1])
		for row, padding := range start {
			for i := range tokens - int(padding) {
				at, want := row*tokens+i, float32(row*tokens+i+int(padding)+1)
				if first[at] != want {
					t.Errorf("padding %v, row %d: token %d in front is %v, want %v", start, row, i, first[at], want)
				}
				if got := back[at+int(padding)]; got != want {
					t.Errorf("padding %v, row %d: token %d is %v after the way back, want %v", start, row, i, got, want)
				}
			}
		}
	}
}

// cuDNN's attention is what the oracle says, and so finite for padding.
func TestFusedPromptOnCUDA(t *testing.T) {
	backend := testbackend.CUDA(t)
	for _, c := range []struct {
		heads, kvHeads, tokens, dim int
		start                       []int
		dtype                       dtypes.DType
	}{
		{4, 4, 128, 128, []int{0}, dtypes.Float16},
		{4, 2, 200, 64, []int{37}, dtypes.Float16},
		{6, 2, 333, 64, []int{0, 100}, dtypes.BFloat16},
		{2, 1, 1024, 128, []int{1023, 5, 0}, dtypes.Float16},
	} {
		t.Run(fmt.Sprint(c.heads, c.kvHeads, c.tokens, c.dim, c.start, c.dtype), func(t *testing.T) {
			rng, b := rand.New(rand.NewPCG(7, 8)), len(c.start)
			random := func(heads int) (oracle.Tensor, [][][][]float32) {
				x := oracle.NewTensor(b, heads, c.tokens, c.dim)
				rows := make([][][][]float32, b)
				at := 0
				for i := range rows {
					rows[i] = make([][][]float32, heads)
					for j := range rows[i] {
						rows[i][j] = make([][]float32, c.tokens)
						for n := range rows[i][j] {
							rows[i][j][n] = make([]float32, c.dim)
							for d := range rows[i][j][n] {
								v := float32(math.Round(rng.NormFloat64()*32) / 32) // exact in either dtype
								rows[i][j][n][d], x.Data[at] = v, float64(v)
								at++
							}
						}
					}
				}
				return x, rows
			}
			q, queries := random(c.heads)
			k, keys := random(c.kvHeads)
			v, values := random(c.kvHeads)
			start := make([]int32, b)
			for i, n := range c.start {
				start[i] = int32(n)
			}
			scores := Scores{Scale: 1 / math.Sqrt(float64(c.dim))}
			exec := MustNewExec(backend, func(q, k, v, start *Node) *Node {
				narrow := func(x *Node) *Node { return ConvertDType(x, c.dtype) }
				q, k, v = narrow(q), narrow(k), narrow(v)
				if !scores.Fuses(PromptQuery{Device: gpu.Of(backend), Devices: 1, Backend: gx.FusesAttention(backend), Queries: q.Shape(), Keys: k.Shape(), Values: v.Shape()}) {
					t.Error("it is not fused")
				}
				return ConvertDType(scores.FusedPrompt(q, k, v, start), dtypes.Float32)
			})
			defer exec.Finalize()
			got := tensors.MustCopyFlatData[float32](exec.MustCall(queries, keys, values, start)[0])
			if slices.ContainsFunc(got, func(x float32) bool { return math.IsNaN(float64(x)) || math.IsInf(float64(x), 0) }) {
				t.Error("not all is finite")
			}
			tolerance := map[dtypes.DType]float64{dtypes.Float16: 4e-3, dtypes.BFloat16: 3e-2}[c.dtype]
			want, largest := oracle.Attention(q, k, v, c.start, 0), 0.0
			for at, w := range want.Data {
				row, slot := at/(c.heads*c.tokens*c.dim), at/c.dim%c.tokens
				if slot >= c.start[row] {
					largest = max(largest, math.Abs(float64(got[at])-w))
				}
			}
			t.Logf("largest difference %.2g", largest)
			if !(largest <= tolerance) {
				t.Errorf("largest difference %v, want at most %v", largest, tolerance)
			}
		})
	}
}
