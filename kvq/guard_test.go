package kvq_test

import (
	"math"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/testbackend"
	"github.com/kvqbook/kvqbook/internal/testlane"
	. "github.com/kvqbook/kvqbook/kvq"
)

var guardShape = Shape{Layers: 2, Batch: 2, KVHeads: 2, HeadDim: 64, Capacity: 16, DType: dtypes.Float32}

// tokensOf are t tokens' keys, values or queries: [2, 2, t, 64] of numbers that differ.
func tokensOf(g *Graph, t int) *Node {
	s := shapes.Make(dtypes.Float32, 2, 2, t, 64)
	return Sin(Reshape(Iota(g, shapes.Make(dtypes.Float32, s.Size()), 0), s.Dimensions...))
}

// oneStep is a right step of t tokens; it returns the output of the last layer, which reads that of
// the first.
func oneStep(c Cache, g *Graph, t int) *Node {
	x := tokensOf(g, t)
	for i := range 2 {
		layer := c.Layer(i)
		layer.Append(x, x)
		x = layer.Attend(x)
	}
	c.Advance()
	return x
}

// Each wrong use is an error of one line when the graph is built, and nothing of it is compiled.
func TestWrongUseIsAnErrorOfTheGraph(t *testing.T) {
	plan, err := New(Config{}, guardShape)
	if err != nil {
		t.Fatal(err)
	}
	quantized, err := New(Tutorial(), guardShape)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		use  func(c Cache, g *Graph)
		want string
	}{
		{"Append twice", func(c Cache, g *Graph) {
			c.Layer(0).Append(tokensOf(g, 1), tokensOf(g, 1))
			c.Layer(0).Append(tokensOf(g, 1), tokensOf(g, 1))
		}, "kvq.Append: layer 0 was appended to in this step, want Advance before the next"},
		{"Advance forgotten, next step", func(c Cache, g *Graph) {
			for range 2 {
				for i := range 2 {
					c.Layer(i).Append(tokensOf(g, 1), tokensOf(g, 1))
					c.Layer(i).Attend(tokensOf(g, 1))
				}
			}
		}, "kvq.Append: layer 0 was appended to in this step, want Advance before the next"},
		{"Advance forgotten, state taken", func(c Cache, g *Graph) {
			c.Layer(0).Append(tokensOf(g, 3), tokensOf(g, 3))
			c.Nodes()
		}, "kvq.Nodes: a step of 3 tokens is under way, want Advance before"},
		{"Advance forgotten, positions of another step", func(c Cache, g *Graph) {
			c.Layer(0).Append(tokensOf(g, 3), tokensOf(g, 3))
			c.Positions(1)
		}, "kvq.Positions: 1 tokens in a step of 3, want the same number, or Advance before"},
		{"positions of nothing", func(c Cache, g *Graph) { c.Positions(0) }, "kvq.Positions: 0 tokens in a step of 0, want at least 1"},
		{"Advance without Append", func(c Cache, _ *Graph) { c.Advance() }, "kvq.Advance: nothing was appended in this step"},
		{"Advance before the last layer", func(c Cache, g *Graph) {
			c.Layer(0).Append(tokensOf(g, 2), tokensOf(g, 2))
			c.Advance()
		}, "kvq.Advance: layer 1 got no tokens in this step of 2, want an Append to every layer"},
		{"Attend before Append", func(c Cache, g *Graph) {
			c.Layer(0).Append(tokensOf(g, 1), tokensOf(g, 1))
			c.Layer(1).Attend(tokensOf(g, 1))
		}, "kvq.Attend: nothing was appended to layer 1 in this step; call Append first"},
		{"Append twice in Through", func(c Cache, g *Graph) {
			x := tokensOf(g, 1)
			c.Through(0, gx.Zeros(g, shapes.Make(dtypes.Float32, 2, 1, 8)), []*Node{x}, func(c LayerCache, y *Node, in []*Node) *Node {
				c.Append(in[0], in[0])
				c.Append(in[0], in[0])
				return y
			})
		}, "kvq.Append: layer 0 was appended to in this step, want Advance before the next"},
		{"Through without Append", func(c Cache, g *Graph) {
			c.Through(0, gx.Zeros(g, shapes.Make(dtypes.Float32, 2, 1, 8)), nil, func(_ LayerCache, x *Node, _ []*Node) *Node { return x })
		}, "kvq.Through: layer 0 got no tokens, want one Append in the decoder"},
		{"more tokens than slots", func(c Cache, g *Graph) { oneStep(c, g, 17) }, "kvq.Append: 17 new tokens, the cache has a capacity of 16"},
		{"Crop with a vector", func(c Cache, g *Graph) { c.Crop(Const(g, []int32{1})) }, "kvq.Crop: (Int32)[1], want an int32 scalar: how many tokens of every row to forget"},
		{"Crop with a float", func(c Cache, g *Graph) { c.Crop(Const(g, float32(1))) }, "kvq.Crop: (Float32), want an int32 scalar: how many tokens of every row to forget"},
		{"Crop in a step", func(c Cache, g *Graph) {
			c.Layer(0).Append(tokensOf(g, 1), tokensOf(g, 1))
			c.Crop(Const(g, int32(1)))
		}, "kvq.Crop: a step of 1 tokens is under way, want Advance before"},
		{"Reorder of too few rows", func(c Cache, g *Graph) { c.Reorder(Const(g, []int32{0})) }, "kvq.Reorder: rows (Int32)[1], want int32 [2]: the row that each becomes a copy of"},
		{"Reorder with floats", func(c Cache, g *Graph) { c.Reorder(Const(g, []float32{0, 1})) }, "kvq.Reorder: rows (Float32)[2], want int32 [2]: the row that each becomes a copy of"},
	} {
		for kind, p := range map[string]*Plan{"full": plan, "quantized": quantized} {
			for _, fresh := range []bool{true, false} {
				exec := MustNewExec(testbackend.XLA(t), func(in []*Node) *Node {
					cache := p.Init(in[0])
					if !fresh {
						oneStep(cache, in[0].Graph(), 2)
						cache = p.From(cache.Nodes())
					}
					c.use(cache, in[0].Graph())
					return in[0]
				})
				_, err := exec.Call([]int32{0, 0})
				exec.Finalize()
				if err == nil {
					t.Errorf("%s, %s cache: no error, want %q", c.name, kind, c.want)
				} else if line, _, _ := strings.Cut(lastLine(err), "\n"); line != c.want {
					t.Errorf("%s, %s cache: %q, want %q", c.name, kind, line, c.want)
				}
			}
		}
	}
}

// lastLine is what a panic in a graph said, without what GoMLX puts in front of it.
func lastLine(err error) string {
	text := err.Error()
	if at := strings.Index(text, "kvq."); at >= 0 {
		text = text[at:]
	}
	return text
}

// What only the device knows: a step that does not fit, and steps after a Crop of what is not there
// or a Reorder by no row, are NaN throughout; right ones beside them are numbers.
func TestWhatDoesNotFitIsNaN(t *testing.T) {
	configs := map[string]Config{"full": {}}
	if testlane.All() { // the guard is the same for all; quantized ones compile for 15 s
		configs["tutorial"] = Tutorial()
		for _, name := range Presets() {
			c, err := Preset(name)
			if err != nil {
				t.Fatal(err)
			}
			configs[name] = c
		}
	}
	for name, config := range configs {
		plan, err := New(config, guardShape)
		if err != nil {
			t.Fatal(err)
		}
		var want []bool // NaN
		exec := MustNewExec(testbackend.XLA(t), func(in []*Node) []*Node {
			g := in[0].Graph()
			var out []*Node
			add := func(x *Node, wrong bool) { out, want = append(out, x), append(want, wrong) }
			cache := plan.Init(in[0])
			add(oneStep(cache, g, 10), false)
			at10 := cache.Nodes()
			add(oneStep(cache, g, 6), false)
			full := cache.Nodes()
			add(oneStep(cache, g, 1), true)
			add(oneStep(plan.From(at10), g, 7), true)
			edited := func(state []*Node, edit func(c Cache)) *Node {
				c := plan.From(state)
				edit(c)
				return oneStep(c, g, 1)
			}
			n := in[1] // not a constant
			crop := func(by int) func(c Cache) { return func(c Cache) { c.Crop(gx.AddScalar(n, by)) } }
			add(edited(full, crop(1)), false)
			add(edited(full, crop(16)), false)
			add(edited(full, crop(17)), true)
			add(edited(at10, crop(11)), true)
			add(edited(at10, crop(-1)), true)
			add(edited(at10, func(c Cache) { c.Reorder(Const(g, []int32{1, 1})) }), false)
			add(edited(at10, func(c Cache) { c.Reorder(Const(g, []int32{0, 2})) }), true)
			add(edited(at10, func(c Cache) { c.Reorder(Const(g, []int32{-1, 0})) }), true)
			return out
		})
		out, err := exec.Call([]int32{0, 3}, int32(0))
		if err != nil {
			t.Fatal(err)
		}
		for i, x := range out {
			for at, v := range tensors.MustCopyFlatData[float32](x) {
				if got := math.IsNaN(float64(v)); got != want[i] {
					t.Errorf("%s, output %d: number %d is %g, want NaN: %v", name, i, at, v, want[i])
					break
				}
			}
		}
		exec.Finalize()
	}
}
