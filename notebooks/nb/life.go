package nb

import (
	"fmt"
	"image/color"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/kvq"
)

// Moment says how a cache holds the tokens of a row after so many new ones.
type Moment struct {
	New   int // tokens fed after the prompt
	Coded int // held as codes
	Exact int // held in full precision
}

// Life runs a real cache of one layer and one head (made-up keys and values, head dimension 64)
// through a prompt and so many single tokens, and says after the prompt and after each token what
// it holds.
func Life(backend compute.Backend, config kvq.Config, prompt, steps int) []Moment {
	moments, err := life(backend, config, prompt, steps)
	Check(err)
	return moments
}

func life(backend compute.Backend, config kvq.Config, prompt, steps int) ([]Moment, error) {
	seen, err := watch(backend, config, prompt, steps, held)
	var moments []Moment
	for step, counts := range seen {
		moments = append(moments, Moment{step, int(counts[0]), int(counts[1])})
	}
	return moments, err
}

// ExactSlots runs a cache as [Life] does, and says for each moment which token lies in each of its
// slots for full precision, sinks first and then the window: -1 for none.
func ExactSlots(backend compute.Backend, config kvq.Config, prompt, steps int) [][]int {
	seen, err := watch(backend, config, prompt, steps, func(nodes []*graph.Node) *graph.Node { return nodes[exactIndex] })
	Check(err)
	out := make([][]int, len(seen))
	for i, slots := range seen {
		for _, token := range slots {
			out[i] = append(out[i], int(token))
		}
	}
	return out
}

// watch feeds a prompt and then single tokens to a cache of one layer and one head, and looks at
// its state after each: look returns an int32 array of it.
func watch(backend compute.Backend, config kvq.Config, prompt, steps int, look func(nodes []*graph.Node) *graph.Node) (seen [][]int32, err error) {
	plan, err := kvq.New(config, kvq.Shape{Layers: 1, Batch: 1, KVHeads: 1, HeadDim: 64, Capacity: prompt + steps, DType: dtypes.Float32})
	if err != nil {
		return nil, err
	}
	feed := func(c kvq.Cache, tokens int) []*graph.Node {
		g := c.Length().Graph()
		made := graph.IotaFull(g, shapes.Make(dtypes.Float32, 1, 1, tokens, 64))
		c.Layer(0).Append(made, made)
		c.Advance()
		return append(c.Nodes(), look(c.Nodes()))
	}
	first, err := graph.NewExec(backend, func(start *graph.Node) []*graph.Node { return feed(plan.Init(start), prompt) })
	if err != nil {
		return nil, err
	}
	defer first.Finalize()
	next, err := graph.NewExec(backend, func(state []*graph.Node) []*graph.Node { return feed(plan.From(state), 1) })
	if err != nil {
		return nil, err
	}
	defer next.Finalize()

	out, err := first.Call([]int32{0})
	if err != nil {
		return nil, err
	}
	for {
		looked, err := tensors.CopyFlatData[int32](out[len(out)-1])
		if err != nil {
			return nil, err
		}
		if seen = append(seen, looked); len(seen) == steps+1 {
			return seen, nil
		}
		state := make([]any, len(out)-1)
		for i, t := range out[:len(out)-1] {
			state[i] = t
		}
		if out, err = next.Call(state...); err != nil {
			return nil, err
		}
	}
}

// The index arrays in a quantized cache's state (docs/design.md), where -1 is an empty slot.
const codeIndex, exactIndex = 4, 5

// held counts tokens in codes and in full precision, int32 [2], in a cache of one row.
func held(nodes []*graph.Node) *graph.Node {
	count := func(index *graph.Node) *graph.Node {
		some := graph.GreaterOrEqual(index, graph.ZerosLike(index))
		return graph.ReduceAllSum(graph.ConvertDType(some, dtypes.Int32))
	}
	return graph.Stack([]*graph.Node{count(nodes[codeIndex]), count(nodes[exactIndex])}, 0)
}

// Flushes are the moments at which the number of coded tokens has grown.
func Flushes(moments []Moment) []Moment {
	var out []Moment
	for i := 1; i < len(moments); i++ {
		if moments[i].Coded > moments[i-1].Coded {
			out = append(out, moments[i])
		}
	}
	return out
}

// Strips draws what a cache holds at some moments, one strip each: every cell is a token, the
// oldest on the left.
func Strips(moments []Moment, at ...int) Picture {
	const left, wide, high, gap = 138.0, 546.0, 17.0, 29.0
	s := newSketch(700, 64+gap*float64(len(at)))
	most := 0
	for _, i := range at {
		most = max(most, moments[i].Coded+moments[i].Exact)
	}
	cell := wide / float64(most)
	top := 64 + gap*float64(len(at))
	legend := func(x float64, c color.Color, words string) {
		s.box(x, top-22, 11, 11, c)
		s.text(x+16, top-16.5, style{size: 10.5}, words)
	}
	legend(left, codeColor, "quantized: codes, scales, zero points")
	legend(left+230, holdColor, "full precision: the residual window")
	for row, i := range at {
		m, y := moments[i], top-36-gap*float64(row)-high
		words := "after the prompt"
		if m.New > 0 {
			words = fmt.Sprintf("after %d new", m.New)
		}
		s.text(left-10, y+high/2, style{size: 10.5, align: -1}, words)
		for token := range m.Coded + m.Exact {
			c := codeColor
			if token >= m.Coded {
				c = holdColor
			}
			s.box(left+float64(token)*cell, y, cell-0.7, high, c)
		}
	}
	s.arrow(left, 20, left+wide, 20, 0.8, ink)
	s.text(left, 9, style{size: 10}, "tokens of one row, the oldest first")
	return s.picture()
}
