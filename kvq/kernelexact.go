package kvq

import (
	"math"

	"github.com/kvqbook/kvqbook/internal/ttir"
)

// exactSide is what the kernel reads of sinks and window. The programs beyond those that read codes take exactTile slots each, and nothing else.
type exactSide struct {
	k                   kernelShape
	q                   ttir.Value
	index, keys, values ttir.Value
}

// exactState is attention over exact tokens, for one query: the largest score times log2(e), the sum of weights, the output [D].
type exactState struct{ best, sum, out ttir.Value }

func (s exactSide) attend(t *ttir.Kernel, split, head, query, row ttir.Value, visible func(token ttir.Value) ttir.Value) []exactState {
	k := s.k
	from := split.AddInt(-k.splits).MulInt(exactTile)
	to := ttir.Select(ttir.Less(split, t.Int(k.splits)), from, ttir.Min(from.AddInt(exactTile), t.Int(k.exact)))
	var carried []ttir.Value
	for range k.together {
		carried = append(carried, t.Float(kernelMasked), t.Float(0), t.Fill(t.Float(0), k.dim))
	}
	carried = t.For(from, to, exactTile, 1, carried, func(i ttir.Value, carried []ttir.Value) []ttir.Value {
		slot := ttir.Add(i, t.Range(exactTile, 0, 1))
		ours := ttir.Less(slot, t.Int(k.exact))
		slot = ttir.Min(slot, t.Int(k.exact-1))
		seen := visible(ttir.Load(s.index, ttir.Add(row.MulInt(k.exact), slot)))
		channel := t.Range(k.dim, 1, 2)
		place := ttir.Add(ttir.Add(head.MulInt(k.exact), slot).MulInt(k.dim).Expand(1), channel)
		keys, values := ttir.Load(s.keys, place).ToFloat(), ttir.Load(s.values, place).ToFloat()
		var next []ttir.Value
		for r := range k.together {
			state := carried[3*r : 3*r+3]
			q := ttir.Load(s.q, ttir.Add(query.AddInt(r).MulInt(k.dim), channel)).ToFloat().MulFloat(float32(k.scoreScale() * math.Log2E))
			score := ttir.Select(seen, ttir.Mul(keys, q).Sum(1), t.Float(kernelMasked))
			score = ttir.Select(ours, score, t.Float(beyond))
			best := ttir.Max(state[0], score.Max(0))
			fade, weight := ttir.Sub(state[0], best).Exp2(), ttir.Sub(score, best).Exp2()
			sum := ttir.Mul(values, weight.Expand(1)).Sum(0)
			next = append(next, best, ttir.MulAdd(state[1], fade, weight.Sum(0)), ttir.MulAdd(state[2], fade, sum))
		}
		return next
	})
	out := make([]exactState, k.together)
	for r := range out {
		out[r] = exactState{carried[3*r], carried[3*r+1], carried[3*r+2]}
	}
	return out
}

// buildMerge writes the kernel that joins what the programs of a head leave, [partial.merge] of all of them. Its grid is queries x pieces of D.
//
//	max, sum [programs, rows], out [programs, rows, D] float32, rows = B·K·Q
//	max, sum [rows], out [rows, D] float32; where values are turned, out of codes, and then out of exact tokens
func (k kernelShape) buildMerge() *ttir.Kernel {
	t := ttir.New("merge")
	pointers := func(n int) (list []ttir.Value) {
		for range n {
			list = append(list, t.Pointer(ttir.F32))
		}
		return list
	}
	in, out := pointers(3), pointers(2+k.outputs())
	rows, n := k.batch*k.heads*k.queries, 1
	for n < k.programs() {
		n *= 2
	}
	row, piece := t.ProgramID(0), t.ProgramID(1)
	part := t.Range(n, 0, 1)
	at := ttir.Add(ttir.Min(part, t.Int(k.programs()-1)).MulInt(rows), row)
	top := ttir.Select(ttir.Less(part, t.Int(k.programs())), ttir.Load(in[0], at), t.Float(2*masked))
	best := top.Max(0)
	weight := ttir.Sub(top, best).MulFloat(math.Log2E).Exp2()
	channel := ttir.Add(piece.MulInt(mergeChannels), t.Range(mergeChannels, 1, 2))
	values := ttir.Load(in[2], ttir.Add(at.MulInt(k.dim).Expand(1), channel))
	ttir.Store(out[0], row, best)
	ttir.Store(out[1], row, ttir.Mul(weight, ttir.Load(in[1], at)).Sum(0))
	place := ttir.Add(ttir.Add(row.MulInt(k.dim), piece.MulInt(mergeChannels)), t.Range(mergeChannels, 0, 1))
	weights := []ttir.Value{weight}
	if k.value.Rotate {
		coded := ttir.Less(part, t.Int(k.splits))
		weights = []ttir.Value{ttir.Select(coded, weight, t.Float(0)), ttir.Select(coded, t.Float(0), weight)}
	}
	for i, weight := range weights {
		ttir.Store(out[2+i], place, ttir.Mul(values, weight.Expand(1)).Sum(0))
	}
	return t
}

// outputs is how many the merge has: those of turned values have to be turned back before those of exact ones are added.
func (k kernelShape) outputs() int {
	if k.value.Rotate {
		return 2
	}
	return 1
}

// mergeChannels is how many channels a program of the merge takes.
const mergeChannels = 32
