package kernel

import (
	"math"

	"github.com/kvqbook/kvqbook/internal/ttir"
	"github.com/kvqbook/kvqbook/kvq/internal/attend"
	"github.com/kvqbook/kvqbook/kvq/internal/codes"
)

// Keys in the kernel: a head's channels are cut into slices of equal size, each within a group. A
// thread adds the codes of its slice for a few tokens; then the slices are added. Values of the
// kernel are [tile, slices, 32 tokens].

//
// Slices and the channels of each are padded to powers of two: queries of padding are 0, and what
// they are multiplied by is a code that belongs to another channel.

// slices is the number of slices: the groups of a head, and at least four where each then still has
// a whole word of every plane, so that a few threads share the queries between them.
func (s side) slices() int {
	planes, layout, most := s.Planes(), s.Words(), 0
	for n := s.Groups(); n <= layout.Parts*planes[0].Count; n += s.Groups() {
		whole := true
		for _, p := range planes {
			whole = whole && layout.Parts*p.Count%n == 0
		}
		if whole {
			most = n
		}
		if most >= 4 {
			break
		}
	}
	return most
}

// slicing is how a head's channels are cut: slices of so many channels, the last ones padding where
// codes have rows of padding, and the powers of two that both are padded to.
type slicing struct{ slices, channels, slicesRoom, channelsRoom int }

func (s side) slicing() slicing {
	n := s.slices()
	channels := s.Words().Padded() / n
	return slicing{n, channels, attend.PowerOf2From(n), attend.PowerOf2From(channels)}
}

// padded tells whether there is any padding.
func (c slicing) padded(dim int) bool { return c.slicesRoom*c.channelsRoom > dim }

// keyQueries is a query as the keys' codes need it: [1, slices, channels of a slice].
type keyQueries struct {
	scaled []ttir.Value   // for the codes of each plane
	fields [][]ttir.Value // the same by channel of a slice, [1, slices]; per token
	plain  ttir.Value
}

// queries loads the queries of a program, which begin with query; those of rotated keys come
// multiplied by scoreScale.
func (s side) queries(t *ttir.Kernel, q, query ttir.Value) []keyQueries {
	list := s.Planes()
	cut, dim := s.slicing(), s.k.dim()
	channel := t.Range(cut.channelsRoom, 2, 3)
	scale := math.Log2E // exponentials become powers of two
	if !s.Rotate {
		scale *= s.k.scoreScale()
	}
	out := make([]keyQueries, s.k.queriesPerProgram)
	for r := range out {
		slice := ttir.Add(query.AddInt(r).MulInt(dim), t.Range(cut.slicesRoom, 1, 3).MulInt(cut.channels))
		place, real := ttir.Add(slice, channel), ttir.Value{}
		if cut.padded(dim) {
			at := ttir.Add(t.Range(cut.slicesRoom, 1, 3).MulInt(cut.channels), channel)
			real = ttir.BitAnd(ttir.Less(channel, t.Int(cut.channels)), ttir.Less(at, t.Int(dim)))
			place = ttir.Add(query.AddInt(r).MulInt(dim), clamp(t, at, dim))
		}
		x := ttir.Load(q, place).ToFloat()
		x = x.MulFloat(float32(scale))
		if cut.padded(dim) {
			x = ttir.Select(real, x, t.Float(0))
		}
		out[r].plain = x
		for _, p := range list {
			scaled := ttir.Mul(x, preScales(t, p, channel))
			out[r].scaled = append(out[r].scaled, scaled)
			if !s.PerChannel {
				out[r].fields = append(out[r].fields, scaled.Columns())
			}
		}
	}
	return out
}

// scores are the products of queries with the keys of a tile, times log2(e): [tile, 32] for each
// query.
func (s side) scores(t *ttir.Kernel, queries []keyQueries, block, head ttir.Value) []ttir.Value {
	list, layout, wordsOfPart := s.Planes(), s.Words(), s.WordsOfPart()
	cut, n := s.slicing(), s.slices()
	base := s.k.blockBase(block, head).MulInt(layout.Parts * wordsOfPart * codes.BlockTokens).Expand(2) // [tile, 1, 1]
	slice, lane := padded(t, n, cut.slicesRoom, 1, 3), t.Range(codes.BlockTokens, 2, 3)
	var scale, zero ttir.Value
	if s.PerChannel { // [tile, slices, channels of a slice]
		base := s.groupBase(block, head).MulInt(s.k.dim()).Expand(2)
		channel := ttir.Add(slice.MulInt(cut.channels), t.Range(cut.channelsRoom, 2, 3))
		if cut.padded(s.k.dim()) {
			channel = clamp(t, channel, s.k.dim())
		}
		scale, zero = s.decode(t, ttir.Add(base, channel))
	} else { // [tile, slices, 32]
		groups := s.Groups()
		offset := s.k.blockBase(block, head).MulInt(groups * codes.BlockTokens).Expand(2)
		scale, zero = s.decode(t, ttir.Add(ttir.Add(offset, slice.DivInt(n/groups).MulInt(codes.BlockTokens)), lane))
	}
	sums := make([]ttir.Value, len(queries))
	for i, p := range list {
		fields := p.Fields
		perSlice := layout.Parts * p.Count / n
		weights := make([][]ttir.Value, len(queries)) // by channel of a slice, [.., slices]
		for r, q := range queries {
			if s.PerChannel {
				weights[r] = ttir.Mul(q.scaled[i], scale).Columns()
			} else {
				weights[r] = q.fields[i]
			}
		}
		for w := range perSlice {
			// Word of the head, counted over all parts, as word of a part.
			word := slice.MulInt(perSlice).AddInt(w)
			if layout.Parts > 1 && wordsOfPart != p.Count {
				word = ttir.Add(word.DivInt(p.Count).MulInt(wordsOfPart), word.RemInt(p.Count))
			}
			word = word.AddInt(p.First)
			x := s.loadWords(ttir.Add(ttir.Add(base, word.MulInt(codes.BlockTokens)), lane))
			high := shiftedDown(x)
			for f := range fields {
				code := field(x, high, f, p.Width)
				for r := range queries {
					weight := weights[r][w*fields+f].Expand(2)
					if i+w+f == 0 {
						sums[r] = ttir.Mul(code, weight)
					} else {
						sums[r] = ttir.MulAdd(code, weight, sums[r])
					}
				}
			}
		}
	}
	back := scaleBack(t)
	for r, q := range queries {
		if s.PerChannel {
			sums[r] = ttir.MulAdd(sums[r].Sum(1), back, ttir.Mul(q.plain, zero).Sum(2).Sum(1).Expand(1))
		} else {
			// Back first: a scale above 2^43 times back would be infinite.
			sums[r] = ttir.MulAdd(ttir.Mul(sums[r], back), scale, ttir.Mul(zero, q.plain.Sum(2).Expand(2))).Sum(1)
		}
	}
	if s.TokenScales {
		offset := s.k.blockBase(block, head).MulInt(codes.BlockTokens)
		tokens := byteScale(t, ttir.Load(s.tokens, ttir.Add(offset, t.Range(codes.BlockTokens, 1, 2))))
		for r := range sums {
			sums[r] = ttir.Mul(sums[r], tokens)
		}
	}
	return sums
}
