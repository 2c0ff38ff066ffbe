package kernel

import (
	"maps"
	"math"
	"slices"

	"github.com/kvqbook/kvqbook/internal/ptx"
)

// scores are the products of query t with the keys of a block, times log2(e): tokens 4g to 4g + 3.
func (u *units) scores(at ptx.Value, s stage, q unitQueries) []ptx.Value {
	if !u.Key.PerChannel {
		return u.tokenScores(at, s, q)
	}
	scores := u.channelScores(at, s, q)
	if u.Key.TokenScales {
		for i, scale := range u.byteScales(u.Add(at, u.Mul(u.g, u.Int(4))), s.keyTokens) {
			scores[i] = u.FMul(scores[i], scale)
		}
	}
	return scores
}

// tokenScores are scores where tokens have scales.
func (u *units) tokenScores(at ptx.Value, s stage, q unitQueries) []ptx.Value {
	planes, scores := u.planes(u.Key), make([]ptx.Value, 4)
	zero := u.Float(0)
	lane := u.Add(at, u.Mul(u.g, u.Int(4*u.scaleSize())))
	for group, sum := range q.sums {
		var c [2][4]ptx.Value // rows of the first are tokens 4g and 4g + 1
		for tile := range c {
			c[tile] = [4]ptx.Value{zero, zero, zero, zero}
		}
		for slice := group * u.Key.Group / sliceRows; slice < (group+1)*u.Key.Group/sliceRows; slice++ {
			for i, p := range planes {
				words := u.loads(p, u.Key.Bits, at, s.keys, slice, 128)
				for tile := range c {
					c[tile] = u.slice(p, words[2*tile], words[2*tile+1], q.columns[i][slice], c[tile])
				}
			}
		}
		scale := u.scales(lane, s.keyScales+32*group*u.scaleSize())
		var zeros []ptx.Value
		if u.Key.HasZeros() {
			zeros = u.zeros(u.Key, lane, s.keyZeros+32*group*u.scaleSize(), scale)
		}
		for i := range scores {
			x := u.FAdd(c[i/2][i%2*2], c[i/2][i%2*2+1])
			if zeros == nil {
				x = u.FAdd(x, sum)
			}
			if group == 0 {
				x = u.FMul(x, scale[i])
			} else {
				x = u.FMulAdd(x, scale[i], scores[i])
			}
			if zeros != nil {
				x = u.FMulAdd(zeros[i], sum, x)
			}
			scores[i] = x
		}
	}
	for i := range scores {
		scores[i] = u.FMul(scores[i], u.Float(float32(math.Ldexp(1, halfBias-queryScale))))
	}
	return scores
}

// channelScores are scores where channels have scales. These are multiplied with the queries.
func (u *units) channelScores(at ptx.Value, s stage, q unitQueries) []ptx.Value {
	zero, parts := u.Float(0), u.parts()
	c := [2][4]ptx.Value{{zero, zero, zero, zero}, {zero, zero, zero, zero}}
	zeros := map[int]ptx.Value{} // queries times zero points, by what they were scaled down for the place of codes
	for i, p := range u.planes(u.Key) {
		lane := u.Add(at, u.Mul(u.Add(p.start, u.Mul(q.part, u.Int(sliceRows))), u.Int(u.scaleSize())))
		apart := p.apart() * u.scaleSize()
		for j, rows := range q.plain[i] {
			first := j * parts
			offset := first * sliceRows * u.scaleSize()
			scale := append(u.scales(lane, s.keyScales+offset), u.scales(lane, s.keyScales+offset+apart)...)
			if i == 0 {
				zeroPoints := scale
				if u.Key.HasZeros() {
					at := s.keyZeros + offset
					zeroPoints = append(u.zeros(u.Key, lane, at, scale[:4]), u.zeros(u.Key, lane, at+apart, scale[4:])...)
				}
				for f := range 4 {
					low, high := p.rows(f)
					for _, row := range []int{low, high} {
						j := p.index(row)
						if sum, ok := zeros[p.at(f)]; ok {
							zeros[p.at(f)] = u.FMulAdd(zeroPoints[j], rows[j], sum)
						} else {
							zeros[p.at(f)] = u.FMul(zeroPoints[j], rows[j])
						}
					}
				}
			}
			for j, x := range rows {
				rows[j] = u.FMul(x, scale[j])
			}
			mine := u.nearestPairs(p, rows)
			for part := range parts {
				by := mine
				if parts > 1 {
					for f, x := range mine {
						by[f] = u.FromLane(x, q.from[part])
					}
				}
				words := u.loads(p, u.Key.Bits, at, s.keys, first+part, 128)
				for tile := range c {
					c[tile] = u.slice(p, words[2*tile], words[2*tile+1], by, c[tile])
				}
			}
		}
	}
	sum := zero
	factor := math.Ldexp(1, -channelScale)
	if !u.Key.HasZeros() {
		factor *= -float64(u.Key.Spec.Middle())
	}
	for _, at := range slices.Sorted(maps.Keys(zeros)) {
		sum = u.FMulAdd(zeros[at], u.Float(float32(math.Ldexp(factor, at))), sum)
	}
	masks := []int{1, 2} // lanes of other channels: those of other t, and of other parts
	for part := 1; part < parts; part *= 2 {
		masks = append(masks, 8*u.realColumns()*part)
	}
	for _, mask := range masks {
		sum = u.FAdd(sum, u.Across(sum, mask))
	}
	sum = u.FromLane(sum, u.Mul(u.t, u.Int(8))) // of query t
	scores := make([]ptx.Value, 4)
	for i := range scores {
		x := u.FAdd(c[i/2][i%2*2], c[i/2][i%2*2+1])
		scores[i] = u.FMulAdd(x, u.Float(float32(math.Ldexp(1, halfBias-channelScale))), sum)
	}
	return scores
}

// slice adds the products of 32 rows of codes: a and b are the words of the rows g and g + 8 of the
// result.
func (u *units) slice(p slicePlane, a, b []ptx.Value, by [4]ptx.Value, c [4]ptx.Value) [4]ptx.Value {
	x, y := p.pairs(u, a), p.pairs(u, b)
	for f := 0; f < 4; f += 2 {
		c = u.Units(ptx.BF16, [4]ptx.Value{x[f], y[f], x[f+1], y[f+1]}, [2]ptx.Value{by[f], by[f+1]}, c)
	}
	return c
}
