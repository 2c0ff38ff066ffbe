package kernel

import (
	"maps"
	"math"
	"slices"

	"github.com/kvqbook/kvqbook/internal/ptx"
)

// scales are four neighbouring numbers of scales or zero points, as float32.
func (u *units) scales(at ptx.Value, offset int) []ptx.Value {
	if u.elem == ptx.F32 {
		return u.LoadShared(4, at, offset)
	}
	var list []ptx.Value
	for _, x := range u.LoadShared(2, at, offset) {
		list = append(list, u.Low(u.elem, x), u.High(u.elem, x))
	}
	return list
}

// scores are the products of query t with the keys of a block, times log2(e): tokens 4g to 4g + 3.
func (u *units) scores(at ptx.Value, s stage, q unitQueries) []ptx.Value {
	if u.Key.PerChannel {
		return u.channelScores(at, s, q)
	}
	return u.tokenScores(at, s, q)
}

// tokenScores are scores where tokens have scales.
func (u *units) tokenScores(at ptx.Value, s stage, q unitQueries) []ptx.Value {
	planes, scores := u.planes(u.Key), make([]ptx.Value, 4)
	zero := u.Float(0)
	lane := u.Add(at, u.Mul(u.g, u.Int(4*u.elem.Bytes())))
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
		scale := u.scales(lane, s.keyScales+32*group*u.elem.Bytes())
		var zeros []ptx.Value
		if u.Key.HasZeros() {
			zeros = u.scales(lane, s.keyZeros+32*group*u.elem.Bytes())
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
	zero := u.Float(0)
	c := [2][4]ptx.Value{{zero, zero, zero, zero}, {zero, zero, zero, zero}}
	zeros := map[int]ptx.Value{} // queries times zero points, by what they were scaled down for the place of codes
	for i, p := range u.planes(u.Key) {
		lane := u.Add(at, u.Mul(p.start, u.Int(u.elem.Bytes())))
		eight := func(offset int) []ptx.Value {
			return append(u.scales(lane, offset), u.scales(lane, offset+p.apart()*u.elem.Bytes())...)
		}
		for slice, rows := range q.plain[i] {
			offset := slice * sliceRows * u.elem.Bytes()
			scale := eight(s.keyScales + offset)
			if i == 0 {
				zeroPoints := scale
				if u.Key.HasZeros() {
					zeroPoints = eight(s.keyZeros + offset)
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
			by := u.nearestPairs(p, rows)
			words := u.loads(p, u.Key.Bits, at, s.keys, slice, 128)
			for tile := range c {
				c[tile] = u.slice(p, words[2*tile], words[2*tile+1], by, c[tile])
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
	sum = u.FAdd(sum, u.Across(sum, 1))
	sum = u.FAdd(sum, u.Across(sum, 2))
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
		c = u.Units([4]ptx.Value{x[f], y[f], x[f+1], y[f+1]}, [2]ptx.Value{by[f], by[f+1]}, c)
	}
	return c
}
