package kernel

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/gomlx/compute/dtypes/bfloat16"
	"github.com/gomlx/compute/dtypes/float16"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/internal/ptx"
	"github.com/kvqbook/kvqbook/internal/testbackend"
	"github.com/kvqbook/kvqbook/internal/testlane"
	"github.com/kvqbook/kvqbook/kvq/internal/attend"
	"github.com/kvqbook/kvqbook/kvq/internal/codes"
)

// setNumber writes a float of an array, by its place.
func setNumber(a *tensors.Tensor, place int, x float32) {
	a.MustMutableFlatData(func(flat any) {
		switch list := flat.(type) {
		case []float32:
			list[place] = x
		case []float16.Float16:
			list[place] = float16.FromFloat32(x)
		case []bfloat16.BFloat16:
			list[place] = bfloat16.FromFloat32(x)
		}
	})
}

// notFinite are the heads, with their queries, of whose answer some element is no finite number.
func (p parts) notFinite(heads int) []bool {
	out := make([]bool, heads)
	each := len(p.max) / heads
	for i, x := range p.out {
		row := i * len(p.max) / len(p.out)
		if v := float64(x / p.sum[row]); math.IsNaN(v) || math.IsInf(v, 0) {
			out[row/each] = true
		}
	}
	return out
}

// poison is a number of a head that is exchanged for one that is not finite.
type poison struct {
	name         string
	array, place int // of kernelTest.state; of the head's numbers
}

// A number that is not finite, in what a head sees, is not lost in any form: NaN comes out of all
// of them. An infinite score may be one that makes a token weigh nothing, so infinity comes out of
// the kernels at least where it comes out of graph operations. It stays in its head.
func TestWhatIsNotFinite(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for _, c := range scoredCases() {
		switch c.name {
		default:
			continue
		case "quanto 3 bit, dim 32": // by multiply-adds, which take long to execute
			c.scores.SoftCap = 3
		case "bytes, keys per channel, sliding, soft cap and scale", "bytes, 8 and 6 bits, symmetric", "preset balanced",
			"preset lowest, token scales", "units, five queries a head, sliding, soft cap", "units, symmetric keys per channel":
		}
		t.Run(c.name, func(t *testing.T) {
			if c.name != "bytes, 8 and 6 bits, symmetric" {
				testlane.Slow(t, "a kernel by tensor units of bytes stands for all")
			}
			x := newKernelTest(t, c)
			heads := x.k.Batch * x.k.Heads
			queries := make([]float32, heads*x.k.Queries*x.k.dim())
			for i := range queries {
				queries[i] = float32(math.Sin(float64(i)))
			}
			x.state = append(x.state, tensors.FromFlatDataAndDimensions(queries, x.k.Batch, x.k.Heads, x.k.Queries, x.k.dim()))
			exec := MustNewExec(testbackend.XLA(t), func(state []*Node) []*Node {
				in := x.k.inputsOf(state)
				in.Queries = state[len(state)-1]
				tiles, words := x.k.graph(in, attend.Tiles), x.k.graph(in, attend.Words)
				list := []*Node{tiles.Max, tiles.Sum, tiles.Out, words.Max, words.Sum, words.Out}
				return append(list, x.k.nodes(in)...)
			})
			defer exec.Finalize()
			list := []poison{{"a query", len(x.state) - 1, 3}, {"an exact key", 4, 3}, {"an exact value", 5, 3}}
			at := 6
			for side, f := range []codes.Format{x.k.Key, x.k.Value} {
				for _, a := range f.Arrays(x.k.Batch, x.k.Heads, x.k.Blocks*codes.BlockTokens, c.dtype) {
					if a.Shape.DType.IsFloat() { // of token or channel 16
						list = append(list, poison{fmt.Sprintf("%s of %s", a.Kind, []string{"keys", "values"}[side]), at, 16})
					}
					at++
				}
			}
			for some := range slices.Chunk(list, heads) {
				for _, what := range []float32{nan, inf, -inf} {
					changed := x
					changed.state = slices.Clone(x.state)
					for head, p := range some {
						a, err := x.state[p.array].(*tensors.Tensor).Clone()
						if err != nil {
							t.Fatal(err)
						}
						each := a.Shape().Size() / heads
						if p.array >= 6 && p.array < len(x.state)-1 {
							each /= a.Shape().Dim(0) // blocks, or groups of tokens
						}
						setNumber(a, head*each+p.place, what)
						changed.state[p.array] = a
					}
					out := exec.MustExec(changed.state...)
					forms := map[string]parts{"tiles": hostParts(out[:3]), "words": hostParts(out[3:6]), "kernel": x.k.runOnHost(out[6:], ptx.Late)}
					graph := make([]bool, heads)
					if c.scores.SoftCap == 0 { // which makes infinite scores finite ones
						graph = forms["tiles"].notFinite(heads)
					}
					for form, got := range forms {
						for head, is := range got.notFinite(heads) {
							switch {
							case head < len(some) && (what != what || graph[head]) && !is:
								t.Errorf("%s: %v in %s is lost", form, what, some[head].name)
							case head >= len(some) && is:
								t.Errorf("%s: %v comes to head %d", form, what, head)
							}
						}
					}
				}
			}
		})
	}
}
