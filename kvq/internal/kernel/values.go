package kernel

import (
	"github.com/kvqbook/kvqbook/internal/ttir"
	"github.com/kvqbook/kvqbook/kvq/internal/attend"
	"github.com/kvqbook/kvqbook/kvq/internal/codes"
)

// Values in the kernel: a thread has a few channels and adds the codes of all tokens of a tile, by
// weights that it shares with the other threads. Words are
// [tile, words, groups, channels of a group]; where groups run along tokens, one group is the whole
// head. Groups and channels are padded to powers of two ([attend.KernelLanes]). Lanes of padding
// read what a neighbour reads, and what they make of it is not used.

// channels are those of lanes, 0 to width-1. For padding, real is false, and the channel is one of
// the last there are.
func (k Attention) channels(t *ttir.Kernel, lane ttir.Value) (channel, real ttir.Value) {
	_, lanes := attend.KernelLanes(k.Value)
	groups, each := k.Value.Groups(), k.dim()/k.Value.Groups()
	if k.width() == k.dim() {
		return lane, ttir.Value{}
	}
	group, at := lane.DivInt(lanes), lane.RemInt(lanes)
	real = ttir.BitAnd(ttir.Less(group, t.Int(groups)), ttir.Less(at, t.Int(each)))
	return ttir.Add(clamp(t, group, groups).MulInt(each), clamp(t, at, each)), real
}

// clamp is the smaller of x and n-1.
func clamp(t *ttir.Kernel, x ttir.Value, n int) ttir.Value { return ttir.Min(x, t.Int(n-1)) }

// padded is 0..n-1 along an axis, and n-1 from there up to size.
func padded(t *ttir.Kernel, n, size, axis, rank int) ttir.Value {
	x := t.Range(size, axis, rank)
	if n == size {
		return x
	}
	return clamp(t, x, n)
}

// initial is what is carried from iteration to iteration for one query: sums of zero points
// [tile, groups, 32] (per token alone), and outputs [groups, channels].
func (s side) initial(t *ttir.Kernel) []ttir.Value {
	g, lanes := attend.KernelLanes(s.Format)
	out := t.Fill(t.Float(0), g, lanes)
	if s.PerChannel {
		return []ttir.Value{out}
	}
	return []ttir.Value{t.Fill(t.Float(0), s.k.tile, g, codes.BlockTokens), out}
}

// valueTile is what is read of a tile.
type valueTile struct {
	words       []ttir.Value // of each plane [tile, words, groups, lanes]
	scale, zero ttir.Value   // per token [tile, groups, 32], per channel [tile, groups, lanes]
}

func (s side) load(t *ttir.Kernel, block, head ttir.Value) (x valueTile) {
	list, words := s.Planes(), s.WordsOfPart()
	g, lanes := attend.KernelLanes(s.Format)
	groups, each := s.Groups(), s.k.dim()/s.Groups()
	base := s.k.blockBase(block, head).MulInt(words * s.k.dim()).Expand(2).Expand(3)
	for _, p := range list {
		word := t.Range(p.Count, 1, 4).AddInt(p.First).MulInt(s.k.dim())
		lane := ttir.Add(padded(t, groups, g, 2, 4).MulInt(each), padded(t, each, lanes, 3, 4))
		x.words = append(x.words, s.loadWords(ttir.Add(ttir.Add(base, word), lane)))
	}
	per, room, offset := codes.BlockTokens, codes.BlockTokens, s.k.blockBase(block, head)
	if s.PerChannel {
		per, room, offset = each, lanes, s.groupBase(block, head)
	}
	offset = ttir.Add(offset.MulInt(groups*per).Expand(2),
		ttir.Add(padded(t, groups, g, 1, 3).MulInt(per), padded(t, per, room, 2, 3)))
	x.scale, x.zero = s.decode(t, offset)
	return x
}

// add adds a tile to what is carried, by weights [tile, 32] of one query; fade is what older tokens
// count less now.
func (s side) add(t *ttir.Kernel, weight ttir.Value, x valueTile, fade ttir.Value, state []ttir.Value) []ttir.Value {
	list := s.Planes()
	g, lanes := attend.KernelLanes(s.Format)
	weight = weight.Expand(1) // [tile, 1, 32]
	var next []ttir.Value
	out, scaled, runs := state[len(state)-1], weight, 1
	if !s.PerChannel {
		next = append(next, ttir.MulAdd(state[0], fade, ttir.Mul(weight, x.zero)))
		scaled, runs = ttir.Mul(weight, x.scale), g
	}
	var sum ttir.Value
	for i, p := range list {
		fields := p.Fields
		weights := ttir.Mul(scaled, preScales(t, p, t.Range(codes.BlockTokens, 2, 3))).Reshape(s.k.tile, runs, p.Count, fields).Columns() // [tile, runs, words] by field
		high := shiftedDown(x.words[i])
		var part ttir.Value
		for f, w := range weights {
			code, w := field(x.words[i], high, f, p.Width), w.Transpose(0, 2, 1).Expand(3)
			if f == 0 {
				part = ttir.Mul(code, w)
			} else {
				part = ttir.MulAdd(code, w, part)
			}
		}
		if s.PerChannel {
			part = part.Sum(1) // [tile, 1, D]
		} else {
			part = part.Reshape(s.k.tile*p.Count, g, lanes).Sum(0) // [groups, D/groups]
		}
		if i == 0 {
			sum = part
		} else {
			sum = ttir.Add(sum, part)
		}
	}
	back := scaleBack(t)
	if s.PerChannel {
		total := weight.Sum(2).Expand(2) // [tile, 1, 1]
		sum = ttir.MulAdd(ttir.Mul(sum, back), x.scale, ttir.Mul(total, x.zero)).Sum(0)
		return append(next, ttir.MulAdd(out, fade, sum))
	}
	return append(next, ttir.MulAdd(sum, back, ttir.Mul(out, fade)))
}

// finish is the output of one query [width].
func (s side) finish(state []ttir.Value) ttir.Value {
	out := state[len(state)-1]
	if !s.PerChannel {
		out = ttir.Add(out, state[0].Sum(2).Sum(0).Expand(1))
	}
	return out.Reshape(s.k.width())
}
