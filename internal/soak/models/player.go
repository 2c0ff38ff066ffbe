package models

import (
	"math"
	"math/rand/v2"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/kvq"
)

// rowText is what a model would hand to a layer's cache for one row, without padding: queries
// [H, T, D], keys and values [K, T, D].
type rowText struct{ queries, keys, values []float32 }

// texts are rows for caches of one shape.
type texts struct {
	heads, kvHeads, dim, tokens int
	rows                        []rowText
}

// newTexts draws rows. Keys have channels of different size, as real ones do.
func newTexts(seed uint64, rows, heads, kvHeads, dim, tokens int) *texts {
	t := &texts{heads: heads, kvHeads: kvHeads, dim: dim, tokens: tokens}
	for row := range rows {
		random := rand.New(rand.NewPCG(seed, uint64(row)))
		draw := func(heads int, size func(channel int) float64) []float32 {
			x := make([]float32, heads*tokens*dim)
			for i := range x {
				x[i] = float32(random.NormFloat64() * size(i%dim))
			}
			return x
		}
		one := func(int) float64 { return 1 }
		t.rows = append(t.rows, rowText{draw(heads, one), draw(kvHeads, func(d int) float64 { return float64(1+d%4) / 3 }), draw(kvHeads, one)})
	}
	return t
}

// at is where element (head, token, channel) lies in keys or values.
func (t *texts) at(head, token, channel int) int { return (head*t.tokens+token)*t.dim + channel }

// player drives a cache of one layer through separate graph calls, as a program would.
type player struct {
	plan        *kvq.Plan
	first, next *Exec
	content     *reader
	text        *texts
	start       []int // padding of each row

	slots int
	state []*tensors.Tensor
	out   []float32 // of the last step, [B, H, t, D]
}

// newPlayer compiles nothing yet. rows may be other texts later: see with.
func newPlayer(config kvq.Config, shape kvq.Shape) (*player, error) {
	b, err := backend()
	if err != nil {
		return nil, err
	}
	plan, err := kvq.New(config, shape)
	if err != nil {
		return nil, err
	}
	p := &player{plan: plan}
	step := func(c kvq.Cache, q, k, v *Node) []*Node {
		c.Layer(0).Append(k, v)
		out := ConvertDType(c.Layer(0).Attend(q), dtypes.Float32)
		c.Advance()
		return append([]*Node{out}, c.Nodes()...)
	}
	if p.first, err = NewExec(b, func(in []*Node) []*Node { return step(plan.Init(in[0]), in[1], in[2], in[3]) }); err != nil {
		return nil, err
	}
	if p.next, err = NewExec(b, func(in []*Node) []*Node {
		n := len(in) - 3
		return step(plan.From(in[:n]), in[n], in[n+1], in[n+2])
	}); err != nil {
		return nil, err
	}
	p.content, err = newReader(plan)
	return p, err
}

// with is the same program for other texts, at its beginning.
func (p *player) with(text *texts, start ...int) *player {
	other := *p
	other.text, other.start, other.slots, other.state, other.out = text, start, 0, nil, nil
	return &other
}

// end frees the graphs.
func (p *player) end() {
	for _, e := range []*Exec{p.first, p.next, p.content.exec} {
		e.Finalize()
	}
}

// inputs are the slots [from, to) of all rows: queries, keys and values. Padding holds large
// numbers, which must not matter.
func (p *player) inputs(from, to int) []any {
	var out []any
	for part, heads := range []int{p.text.heads, p.text.kvHeads, p.text.kvHeads} {
		var flat []float32
		for row, r := range p.text.rows {
			x := [][]float32{r.queries, r.keys, r.values}[part]
			for head := range heads {
				for slot := from; slot < to; slot++ {
					token := slot - p.start[row]
					if token < 0 {
						for range p.text.dim {
							flat = append(flat, 1e4)
						}
						continue
					}
					at := p.text.at(head, token, 0)
					flat = append(flat, x[at:at+p.text.dim]...)
				}
			}
		}
		out = append(out, tensors.FromFlatDataAndDimensions(flat, len(p.text.rows), heads, to-from, p.text.dim))
	}
	return out
}

// add takes the next n slots in, in one call.
func (p *player) add(n int) error {
	exec, args := p.next, []any{}
	if p.state == nil {
		start := make([]int32, len(p.start))
		for i, s := range p.start {
			start[i] = int32(s)
		}
		exec, args = p.first, []any{start}
	}
	for _, x := range p.state {
		args = append(args, x)
	}
	results, err := exec.Exec(append(args, p.inputs(p.slots, p.slots+n)...)...)
	if err != nil {
		return err
	}
	p.out, p.state = tensors.MustCopyFlatData[float32](results[0]), results[1:]
	p.slots += n
	return nil
}

// held reads what the cache holds of each row, by index of the token in the row.
func (p *player) held() ([]map[int]token, error) {
	layers, err := p.content.read(p.state)
	if err != nil {
		return nil, err
	}
	return layers[0], nil
}

// answers are the outputs [H, t, D] of one row in the last step.
func (p *player) answers(row int) []float32 {
	n := len(p.out) / len(p.text.rows)
	return p.out[row*n : (row+1)*n]
}

// finite tells whether no element is NaN or infinite.
func finite(x []float32) bool {
	for _, v := range x {
		if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
			return false
		}
	}
	return true
}
