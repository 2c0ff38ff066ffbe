package codes

import (
	"math"

	"github.com/kvqbook/kvqbook/internal/ptx"
	"github.com/kvqbook/kvqbook/kvq/internal/numbers"
)

// What [encoder.laneKernel] finds of tokens and channels before there are codes: whose numbers
// count, and scales of tokens.

// channels goes through the channels, 32 at a time: column is the place of the lane's channel in
// the tile, and channel its number.
func (l *lanes) channels(do func(column, channel ptx.Value)) {
	k := l.k
	channel, next := k.Variable(l.lane), k.NewLabel()
	column := k.Variable(k.Add(l.tile, k.Mul(l.lane, k.Int(4))))
	k.Here(next)
	do(column, channel)
	k.Set(channel, k.Add(channel, k.Int(ptx.Lanes)))
	k.Set(column, k.Add(column, k.Int(ptx.Lanes*4)))
	if l.format.HeadDim > ptx.Lanes {
		// All lanes have the same turn; the first one's channel tells it.
		k.Branch(next, k.Less(k.Sub(channel, l.lane), k.Int(l.format.HeadDim)))
	}
}

// column reads a channel's numbers, by token, each with its factor where there is one.
func (l *lanes) column(at ptx.Value, with func(token int, x, factor ptx.Value) ptx.Value) []ptx.Value {
	k, elem := l.k, laneElems[l.from]
	out := make([]ptx.Value, l.format.Group)
	for q := 0; q < len(out); q += 16 {
		var words [8]ptx.Value
		for i := range words {
			words[i] = k.LoadShared(1, at, (q/2+i)*l.pitch()*4)[0]
		}
		for from := 0; from < 16; from += 4 {
			factors := make([]ptx.Value, 4)
			if l.format.TokenScales {
				factors = k.LoadShared(4, l.factors, (q+from)*4)
			}
			for i := range 4 {
				x := k.Low(elem, words[(from+i)%8])
				if from >= 8 {
					x = k.High(elem, words[(from+i)%8])
				}
				out[q+from+i] = with(q+from+i, x, factors[i])
			}
		}
	}
	return out
}

// votes reports whether a token has its bit in voting.
func (l *lanes) votes(token int) ptx.Value {
	return l.k.LessUnsigned(l.k.Int(0), l.k.And(l.voting[token/32], l.k.Bits(1<<(token%32))))
}

// scaleTokens is [numbers.TokenScales]: then factors are 1 / scale, and tokens without one have no
// vote any more. usual is of the numbers as they were read; the result is of what was made of them.
func (l *lanes) scaleTokens(usual bool) (all ptx.Value) {
	k, f := l.k, l.format
	all = k.Equal(k.Int(0), k.Int(0))
	parts := l.atOnce() / ptx.Lanes
	factors := k.Add(l.factors, k.Mul(l.lane, k.Int(4)))
	if f.TokenScales {
		k.Await(0) // what lanes wrote is there for all
		sizes := l.sizes(usual)
		most := k.Float(0)
		for _, x := range sizes {
			most = k.FMax(most, x)
		}
		for mask := 1; mask < ptx.Lanes; mask *= 2 {
			most = k.FMax(most, k.Across(most, mask))
		}
		k.Await(0) // before factors change
		for part, size := range sizes {
			scale, stored := numbers.TokenScaleInLane(k, size, most)
			k.StoreLow(1, k.At(l.tokenScales, k.Add(k.Mul(l.block(part), k.Int(ptx.Lanes)), l.lane), 1), 0, stored)
			some := k.FLess(k.Float(0), scale)
			k.StoreShared(factors, part*ptx.Lanes*4, k.FQuotient(k.Float(1), k.Select(some, scale, k.Float(1))))
			voting := k.And(l.voting[part], k.Lanes(some))
			all = k.Both(all, k.Equal(voting, k.Bits(math.MaxUint32)))
			k.Set(l.voting[part], voting)
		}
	}
	k.Await(0)
	for part := range parts {
		if !l.fed {
			break
		}
		own := k.Float(1)
		if f.TokenScales {
			own = k.LoadShared(1, factors, part*ptx.Lanes*4)[0]
		}
		votes := k.LessUnsigned(k.Int(0), k.And(k.ShiftRight(l.voting[part], l.lane), k.Int(1)))
		token := k.Add(k.Mul(l.rowAndHead, k.Int(l.slots)), k.Mul(l.unit, k.Int(l.atOnce())))
		k.StoreLow(4, k.At(l.perToken, k.Add(token, l.lane), 4), part*ptx.Lanes*4, k.Select(votes, own, k.Float(float32(math.NaN()))))
	}
	return all
}

// sizes are those of tokens by dual scaling, a lane each, 32 tokens in each of them.
func (l *lanes) sizes(usual bool) []ptx.Value {
	k, f := l.k, l.format
	factors := k.Add(l.factors, k.Mul(l.lane, k.Int(4)))
	perMost := k.Float(1)
	used := func(token int, x, a, b ptx.Value) ptx.Value {
		if usual {
			return a
		}
		return k.Select(k.Both(l.votes(token), k.Finite(x)), a, b)
	}
	square := func(token int, x ptx.Value) ptx.Value {
		if !usual {
			x = used(token, x, k.FMul(x, perMost), k.Float(0))
		}
		return k.FMul(x, x)
	}
	// Sums over channels, by token.
	sums := make([]ptx.Value, f.Group)
	for i := range sums {
		sums[i] = k.Variable(k.Float(0))
	}
	total := func(round func(column ptx.Value)) []ptx.Value {
		for _, sum := range sums {
			k.Set(sum, k.Float(0))
		}
		l.channels(func(column, _ ptx.Value) { round(column) })
		var out []ptx.Value
		for part := 0; part < len(sums); part += ptx.Lanes {
			out = append(out, l.sumLanes(sums[part:part+ptx.Lanes]))
		}
		return out
	}
	spread := func(list []ptx.Value) {
		k.Await(0)
		for part, sum := range list {
			k.StoreShared(factors, part*ptx.Lanes*4, l.perOne(sum, f.HeadDim))
		}
		k.Await(0)
	}
	if !usual {
		most := k.Variable(k.Float(0))
		l.channels(func(column, _ ptx.Value) {
			l.column(column, func(token int, x, _ ptx.Value) ptx.Value {
				k.Set(most, k.FMax(most, used(token, x, k.FAbs(x), k.Float(0))))
				return x
			})
		})
		for mask := 1; mask < ptx.Lanes; mask *= 2 {
			k.Set(most, k.FMax(most, k.Across(most, mask)))
		}
		perMost = numbers.PerMostInLane(k, most)
		spread(total(func(column ptx.Value) {
			l.column(column, func(token int, x, _ ptx.Value) ptx.Value {
				k.Set(sums[token], k.FAdd(sums[token], square(token, x)))
				return x
			})
		}))
	}
	var out []ptx.Value
	for round := range numbers.TokenScaleRounds - 1 {
		if round > 0 {
			spread(out)
		}
		out = total(func(column ptx.Value) {
			var chains [4]ptx.Value
			squares := l.column(column, func(token int, x, factor ptx.Value) ptx.Value {
				x = square(token, x)
				if token < len(chains) {
					chains[token] = k.FMul(x, factor)
				} else {
					chains[token%4] = k.FMulAdd(x, factor, chains[token%4])
				}
				return x
			})
			per := l.perOne(k.FAdd(k.FAdd(chains[0], chains[1]), k.FAdd(chains[2], chains[3])), f.Group)
			for token, x := range squares {
				k.Set(sums[token], k.FMulAdd(x, per, sums[token]))
			}
		})
	}
	for i := range out {
		out[i] = k.FSqrt(k.FMul(out[i], k.Float(1/float32(f.HeadDim))))
	}
	return out
}

// sumLanes adds each of 32 numbers over the lanes: lane i gets the sum of number i. In each round a
// lane keeps a half of its numbers, and gives the other half to the lane that keeps that.
func (l *lanes) sumLanes(list []ptx.Value) ptx.Value {
	k := l.k
	for mask := ptx.Lanes / 2; mask > 0; mask /= 2 {
		upper := k.LessUnsigned(k.Int(0), k.And(l.lane, k.Int(mask)))
		kept := make([]ptx.Value, mask)
		for i := range kept {
			given := k.Across(k.Select(upper, list[i], list[i+mask]), mask)
			kept[i] = k.FAdd(k.Select(upper, list[i+mask], list[i]), given)
		}
		list = kept
	}
	return list[0]
}

// block counts, for a block of the program's tokens, what heads have in blocks before it.
func (l *lanes) block(i int) ptx.Value {
	k, blocks := l.k, l.atOnce()/BlockTokens
	block := k.Add(k.Mul(l.unit, k.Int(blocks)), k.Int(i))
	return k.Add(k.Mul(k.Add(k.Mul(block, k.Int(l.batch)), l.row), k.Int(l.heads)), l.head)
}

// ofUnit counts what heads have in units before the program's.
func (l *lanes) ofUnit() ptx.Value {
	k := l.k
	return k.Add(k.Mul(k.Add(k.Mul(l.unit, k.Int(l.batch)), l.row), k.Int(l.heads)), l.head)
}
