package kernel

import (
	"math"

	"github.com/kvqbook/kvqbook/internal/ttir"
	"github.com/kvqbook/kvqbook/kvq/internal/attend"
)

// mergeChannels is how many channels a program of the merge takes: a part of every head dimension.
const mergeChannels = attend.KernelMinDim

const mergeWarps = 4

// buildMerge writes the kernel that merges what the programs of a head leave,
// [attend.Partial.Merge] of all of them. Its grid is queries x pieces of width.
//
//	max, sum [programs, rows], out [programs, rows, width] float32, rows = B·K·Q
//	max, sum [rows], out [rows, width] float32; where values are rotated, out of codes, and then out of
//	exact tokens
func (k Attention) buildMerge() *ttir.Kernel {
	t := ttir.New("merge")
	pointers := func(n int) (list []ttir.Value) {
		for range n {
			list = append(list, t.Pointer(ttir.F32))
		}
		return list
	}
	in, out := pointers(3), pointers(2+k.outputs())
	rows, n := k.Batch*k.Heads*k.Queries, 1
	for n < k.programs() {
		n *= 2
	}
	row, piece := t.ProgramID(0), t.ProgramID(1)
	part := t.Range(n, 0, 1)
	at := ttir.Add(ttir.Min(part, t.Int(k.programs()-1)).MulInt(rows), row)
	top := ttir.Select(ttir.Less(part, t.Int(k.programs())), ttir.Load(in[0], at), t.Float(2*attend.Masked))
	best := top.Max(0)
	weight := ttir.Sub(top, best).MulFloat(math.Log2E).Exp2()
	channel := ttir.Add(piece.MulInt(mergeChannels), t.Range(mergeChannels, 1, 2))
	values := ttir.Load(in[2], ttir.Add(at.MulInt(k.width()).Expand(1), channel))
	ttir.Store(out[0], row, best)
	ttir.Store(out[1], row, ttir.Mul(weight, ttir.Load(in[1], at)).Sum(0))
	place := ttir.Add(ttir.Add(row.MulInt(k.width()), piece.MulInt(mergeChannels)), t.Range(mergeChannels, 0, 1))
	weights := []ttir.Value{weight}
	if k.outputs() > 1 {
		coded := ttir.Less(part, t.Int(k.splits))
		weights = []ttir.Value{ttir.Select(coded, weight, t.Float(0)), ttir.Select(coded, t.Float(0), weight)}
	}
	for i, weight := range weights {
		ttir.Store(out[2+i], place, ttir.Mul(values, weight.Expand(1)).Sum(0))
	}
	return t
}

// outputs is how many the merge has: those of rotated values have to be rotated back before those
// of exact ones are added.
func (k Attention) outputs() int {
	if k.Value.Rotate && !k.rotatesInside() {
		return 2
	}
	return 1
}
