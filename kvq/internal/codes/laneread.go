package codes

import (
	"math"

	"github.com/kvqbook/kvqbook/internal/ptx"
)

// How [encoder.laneKernel] reads its numbers: shifted to a row's first token, rotated, and laid
// into the tile of shared memory that lanes take their groups from.

// read rotates the program's tokens into the tile, float16 or bfloat16. It reports whether all have
// a vote, and squares that float32 can hold.
func (l *lanes) read() (usual ptx.Value) {
	k, f, elem := l.k, l.format, laneElems[l.from]
	first := k.LoadWord(k.At(l.firsts, l.row, 4), 0)
	all := k.Equal(k.Int(0), k.Int(0))
	for part := range l.atOnce() / ptx.Lanes {
		voting := k.Bits(math.MaxUint32)
		if l.masked {
			at := k.At(l.valid, k.Add(k.Add(k.Mul(l.row, k.Int(l.tokens)), k.Mul(l.unit, k.Int(l.atOnce()))), l.lane), 1)
			voting = k.Lanes(k.LessUnsigned(k.Int(0), k.LoadByte(at, part*ptx.Lanes)))
			all = k.Both(all, k.Equal(voting, k.Bits(math.MaxUint32)))
		}
		l.voting = append(l.voting, k.Variable(voting))
	}
	// Lane 4g + t has tokens 16q+g and 16q+8+g, and of every 32 channels 8t to 8t+7.
	g, t := k.ShiftRight(l.lane, k.Int(2)), k.And(l.lane, k.Int(3))
	signs, matrices := l.signs(g, t), f.HeadDim/ptx.Lanes
	size := k.Float(float32(1 / math.Sqrt(float64(f.HeadDim))))
	for q := range l.atOnce() / 16 {
		var in [2][][]ptx.Value // by token and matrix: words of two channels
		for i := range in {
			token := k.Add(k.Add(k.Mul(l.unit, k.Int(l.atOnce())), k.Add(first, g)), k.Int(16*q+8*i))
			token = k.Add(k.Min(token, k.Int(l.all-1)), k.Mul(l.row, k.Int(l.all)))
			place := k.Add(k.Mul(k.Add(k.Mul(token, k.Int(l.heads)), l.head), k.Int(f.HeadDim)), k.Mul(t, k.Int(8)))
			at := k.At(l.x, place, 2)
			for m := range matrices {
				in[i] = append(in[i], k.LoadWords(at, m*ptx.Lanes*2))
			}
		}
		// made[i] are the numbers of token i of both: eight of each matrix.
		var made [2][]ptx.Value
		for m := range matrices {
			for half := range 2 {
				a := [4]ptx.Value{in[0][m][2*half], in[1][m][2*half], in[0][m][2*half+1], in[1][m][2*half+1]}
				for _, b := range signs {
					none := k.Float(0)
					c := k.Units(elem, a, b, [4]ptx.Value{none, none, none, none})
					made[0], made[1] = append(made[0], c[:2]...), append(made[1], c[2:]...)
				}
			}
		}
		for _, x := range made {
			butterflies(k, x)
			for i := range x {
				x[i] = k.FMul(x[i], size)
			}
		}
		if f.Keys {
			made = l.keepKeys(made, q, g, t)
		} else {
			l.keepValues(made, q, g, t)
		}
		for i, x := range made {
			squares := k.Float(0)
			for _, x := range x {
				squares = k.FMulAdd(x, x, squares)
			}
			for _, mask := range []int{1, 2} {
				squares = k.FAdd(squares, k.Across(squares, mask))
			}
			all = k.Both(all, k.FLess(squares, k.Float(largestSquares)))
			if f.TokenScales {
				all = k.Both(all, k.FLess(k.Float(1/float32(largestSquares)), squares))
				k.StoreShared(k.Add(l.factors, k.Mul(g, k.Int(4))), (16*q+8*i)*4, l.perOne(squares, f.HeadDim))
			}
		}
	}
	return k.All(all)
}

// largestSquares is what the sum of a token's squares stays below in the usual case: then none of
// its numbers is too large for float16.
const largestSquares = 1e9

// keepKeys writes rotated tokens to the tile, and returns them as they are there: in row 8q+i
// tokens 16q+i and 16q+8+i of a channel in a word.
func (l *lanes) keepKeys(made [2][]ptx.Value, q int, g, t ptx.Value) (kept [2][]ptx.Value) {
	k, elem := l.k, laneElems[l.from]
	packed := make([]ptx.Value, len(made[0]))
	for i := range packed {
		packed[i] = k.Halves(elem, made[0][i], made[1][i])
		kept[0], kept[1] = append(kept[0], k.Low(elem, packed[i])), append(kept[1], k.High(elem, packed[i]))
	}
	at := k.Add(l.tile, k.Mul(k.Add(k.Mul(g, k.Int(l.pitch())), k.Mul(t, k.Int(8))), k.Int(4)))
	for i := 0; i < len(packed); i += 4 {
		k.StoreShared(at, (8*q*l.pitch()+i/8*ptx.Lanes+i%8)*4, packed[i:i+4]...)
	}
	if l.fed {
		l.storeTurned(packed, q, g, t)
	}
	return kept
}

// keepValues writes rotated tokens to the tile, a row each.
func (l *lanes) keepValues(made [2][]ptx.Value, q int, g, t ptx.Value) {
	k, elem := l.k, laneElems[l.from]
	at := k.Add(l.tile, k.Mul(k.Add(k.Mul(g, k.Int(l.pitch())), k.Mul(t, k.Int(4))), k.Int(4)))
	for i, x := range made {
		for from := 0; from < len(x); from += 8 {
			var words []ptx.Value
			for j := from; j < from+8; j += 2 {
				words = append(words, k.Halves(elem, x[j], x[j+1]))
			}
			k.StoreShared(at, ((16*q+8*i)*l.pitch()+from/8*ptx.Lanes/2)*4, words...)
		}
	}
}

// signs are the matrix of signs of the four bits of a channel's number that tensor units rotate: in
// lanes as [ptx.Kernel.Units] says, a half of the columns each. The columns are the channels whose
// words a lane has; so are the rows.
func (l *lanes) signs(g, t ptx.Value) (halves [2][2]ptx.Value) {
	k, elem := l.k, laneElems[l.from]
	channel := func(pair, half ptx.Value) ptx.Value { // the even one of a pair
		return k.Add(k.Mul(pair, k.Int(8)), k.Mul(half, k.Int(2)))
	}
	for columns := range halves {
		column := k.Add(channel(k.ShiftRight(g, k.Int(1)), k.Int(columns)), k.And(g, k.Int(1)))
		for rows := range 2 {
			sign := func(odd int) ptx.Value {
				shared := k.CountBits(k.And(column, k.Add(channel(t, k.Int(rows)), k.Int(odd))))
				return k.FSub(k.Float(1), k.FromInt(k.Mul(k.And(shared, k.Int(1)), k.Int(2))))
			}
			halves[columns][rows] = k.Halves(elem, sign(0), sign(1))
		}
	}
	return halves
}

// butterflies rotates by the bits of a channel's number that are left: eight numbers of a lane are
// channels 8t to 8t+7 of 32, of which the third bit is left, and the next eight those of the next
// 32 channels.
func butterflies(k *ptx.Kernel, x []ptx.Value) {
	for step := 4; step < len(x); step *= 2 {
		for i := range x {
			if i&step == 0 {
				x[i], x[i+step] = k.FAdd(x[i], x[i+step]), k.FSub(x[i], x[i+step])
			}
		}
	}
}

// storeTurned writes rotated tokens for what rounds them with feedback.
func (l *lanes) storeTurned(packed []ptx.Value, q int, g, t ptx.Value) {
	k, f := l.k, l.format
	for i := range 2 {
		token := k.Add(k.Add(k.Mul(l.rowAndHead, k.Int(l.slots)), k.Mul(l.unit, k.Int(l.atOnce()))), k.Add(g, k.Int(16*q+8*i)))
		at := k.At(l.turned, k.Add(k.Mul(token, k.Int(f.HeadDim)), k.Mul(t, k.Int(8))), 2)
		for m := 0; m < len(packed); m += 8 {
			var words []ptx.Value
			for j := m; j < m+8; j += 2 {
				if i == 0 {
					words = append(words, k.LowHalves(packed[j], packed[j+1]))
				} else {
					words = append(words, k.HighHalves(packed[j], packed[j+1]))
				}
			}
			k.Store(k.Equal(k.Int(0), k.Int(0)), at, m/8*ptx.Lanes*2, words...)
		}
	}
}

// perOne is 1 / the mean of n that add up to sum; 1 where they are 0.
func (l *lanes) perOne(sum ptx.Value, n int) ptx.Value {
	k := l.k
	mean := k.FMul(sum, k.Float(1/float32(n)))
	return k.FDiv(k.Float(1), k.Select(k.FLess(k.Float(0), mean), mean, k.Float(1)))
}
