package kernel

import (
	"github.com/kvqbook/kvqbook/internal/ttir"
	"github.com/kvqbook/kvqbook/kvq/internal/codes"
)

// Values in the kernel: a thread has a few channels and adds the codes of all tokens of a tile, by
// weights that it shares with the other threads. Words are [tile, words, groups, channels of a
// group]; where groups run along tokens, one group is the whole head.

// valueGroups is what the lanes are cut into.
func (s side) valueGroups() int { return s.Groups() }

// initial is what is carried from iteration to iteration for one query: sums of zero points
// [tile, groups, 32] (per token alone), and outputs [groups, D/groups].
func (s side) initial(t *ttir.Kernel) []ttir.Value {
	g := s.valueGroups()
	out := t.Fill(t.Float(0), g, s.k.dim()/g)
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
	g := s.valueGroups()
	lanes := s.k.dim() / g
	base := s.k.blockBase(block, head).MulInt(words * s.k.dim()).Expand(2).Expand(3)
	for _, p := range list {
		word := t.Range(p.Count, 1, 4).AddInt(p.First).MulInt(s.k.dim())
		lane := ttir.Add(t.Range(g, 2, 4).MulInt(lanes), t.Range(lanes, 3, 4))
		x.words = append(x.words, ttir.Load(s.codes, ttir.Add(ttir.Add(base, word), lane)))
	}
	per, offset := codes.BlockTokens, s.k.blockBase(block, head)
	if s.PerChannel {
		per, offset = lanes, s.groupBase(block, head)
	}
	offset = ttir.Add(offset.MulInt(g*per).Expand(2), ttir.Add(t.Range(g, 1, 3).MulInt(per), t.Range(per, 2, 3)))
	x.scale, x.zero = s.decode(t, offset)
	return x
}

// add adds a tile to what is carried, by weights [tile, 32] of one query; fade is what older tokens
// count less now.
func (s side) add(t *ttir.Kernel, weight ttir.Value, x valueTile, fade ttir.Value, state []ttir.Value) []ttir.Value {
	list := s.Planes()
	g := s.valueGroups()
	lanes := s.k.dim() / g
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

// finish is the output of one query [D].
func (s side) finish(state []ttir.Value) ttir.Value {
	out := state[len(state)-1]
	if !s.PerChannel {
		out = ttir.Add(out, state[0].Sum(2).Sum(0).Expand(1))
	}
	return out.Reshape(s.k.dim())
}
