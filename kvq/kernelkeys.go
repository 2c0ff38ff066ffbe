package kvq

import (
	"math"

	"github.com/kvqbook/kvqbook/internal/ttir"
)

// Keys in the kernel: a head's channels are cut into slices of equal size, each within a group. A thread adds the codes of its slice for a few
// tokens; then the slices are added. Blocks of values are [tile, slices, 32 tokens].

// slices is the number of slices: the groups of a head, and at least four where each then still has a whole word of every plane, so that a few threads
// share the queries between them.
func (s kernelSide) slices() int {
	n := s.groups(s.k.dim)
	planes, layout, _ := s.planes()
	for n < 4 {
		for _, p := range planes {
			if layout.parts*p.count%(2*n) != 0 {
				return n
			}
		}
		n *= 2
	}
	return n
}

// keyQueries is the query as the keys' codes need it.
type keyQueries struct {
	fields [][]ttir.Value // [plane][word of a slice · field]: [1, slices, 1]
	sums   ttir.Value     // of the query over each slice [1, slices, 1]; per token
	all    ttir.Value     // [1, D]; per channel
}

// queries loads the queries of a program, which begin with query.
func (s kernelSide) queries(t *ttir.Kernel, q, query ttir.Value) []keyQueries {
	list, layout, _ := s.planes()
	n := s.slices()
	slice := t.Range(n, 1, 3)
	unit := s.k.queryScale * math.Log2E // exponentials become powers of two
	out := make([]keyQueries, s.k.together)
	for r := range out {
		base := query.AddInt(r).MulInt(s.k.dim)
		for i, p := range list {
			fields := layout.bits / p.width
			words := layout.parts * p.count / n
			var all []ttir.Value
			for w := range words {
				for f := range fields {
					at, _ := fieldPlace(f, p.width)
					// 2^(low - at) makes codes of all fields count alike.
					factor := math.Ldexp(unit, kernelLift+p.low-at)
					channel := slice.MulInt(words * fields).AddInt(w*fields + f)
					x := ttir.Load(q, ttir.Add(base, channel)).ToFloat()
					all = append(all, x.MulFloat(float32(factor)))
					if i == 0 && s.axis == PerToken {
						if w+f == 0 {
							out[r].sums = x
						} else {
							out[r].sums = ttir.Add(out[r].sums, x)
						}
					}
				}
			}
			out[r].fields = append(out[r].fields, all)
		}
		if s.axis == PerToken {
			out[r].sums = out[r].sums.MulFloat(float32(unit))
		} else {
			out[r].all = ttir.Load(q, ttir.Add(base, t.Range(s.k.dim, 1, 2))).ToFloat().MulFloat(float32(unit))
		}
	}
	return out
}

// scores are the products of queries with the keys of a tile, times log2(e): [tile, 32] for each query.
func (s kernelSide) scores(t *ttir.Kernel, queries []keyQueries, block, head ttir.Value) []ttir.Value {
	list, layout, wordsOfPart := s.planes()
	n := s.slices()
	base := s.k.blockBase(block, head).MulInt(layout.parts * wordsOfPart * blockTokens).Expand(2) // [tile, 1, 1]
	slice, lane := t.Range(n, 1, 3), t.Range(blockTokens, 2, 3)
	sums := make([]ttir.Value, len(queries))
	for i, p := range list {
		fields := layout.bits / p.width
		perSlice := layout.parts * p.count / n
		for w := range perSlice {
			// Word of the head, counted over all parts, as word of a part.
			word := slice.MulInt(perSlice).AddInt(w)
			if layout.parts > 1 && wordsOfPart != p.count {
				word = ttir.Add(word.DivInt(p.count).MulInt(wordsOfPart), word.RemInt(p.count))
			}
			word = word.AddInt(p.first)
			x := ttir.Load(s.codes, ttir.Add(ttir.Add(base, word.MulInt(blockTokens)), lane))
			high := x.ShiftRight(kernelShift)
			for f := range fields {
				code := field(x, high, f, p.width)
				var scale ttir.Value
				if s.axis == PerChannel {
					channel := slice.MulInt(perSlice * fields).AddInt(w*fields + f)
					scale, _ = s.decode(t, ttir.Add(s.groupBase(block, head).MulInt(s.k.dim).Expand(2), channel))
				}
				for r, q := range queries {
					weight := q.fields[i][w*fields+f]
					if s.axis == PerChannel {
						weight = ttir.Mul(weight, scale)
					}
					if i+w+f == 0 {
						sums[r] = ttir.Mul(code, weight)
					} else {
						sums[r] = ttir.MulAdd(code, weight, sums[r])
					}
				}
			}
		}
	}
	back := float32(math.Ldexp(1, unlift))
	if s.axis == PerChannel {
		_, zero := s.decode(t, ttir.Add(s.groupBase(block, head).MulInt(s.k.dim), t.Range(s.k.dim, 1, 2))) // [tile, D]
		for r, q := range queries {
			sum := ttir.Mul(q.all, zero).Sum(1).Expand(1)
			sums[r] = ttir.MulAdd(sums[r].Sum(1), t.Float(back), sum)
		}
		return sums
	}
	groups := s.groups(s.k.dim)
	offset := s.k.blockBase(block, head).MulInt(groups * blockTokens).Expand(2)
	offset = ttir.Add(ttir.Add(offset, slice.DivInt(n/groups).MulInt(blockTokens)), lane)
	scale, zero := s.decode(t, offset)
	scale = scale.MulFloat(back)
	for r, q := range queries {
		sums[r] = ttir.MulAdd(sums[r], scale, ttir.Mul(zero, q.sums)).Sum(1)
	}
	return sums
}
