package codes

import (
	"math"

	"github.com/kvqbook/kvqbook/internal/ptx"
	"github.com/kvqbook/kvqbook/internal/ttir"
	"github.com/kvqbook/kvqbook/kvq/internal/numbers"
)

// Encode as a kernel for CUDA in which a lane has a whole group: a channel of keys, or some
// channels of a token of values. A warp takes the tokens of a unit of a head, rotates them by
// tensor units into shared memory, and then goes through the groups, 32 at a time. A word of codes
// holds those of neighbouring groups, which lanes exchange among themselves.
//
// Most programs have numbers with a vote alone. For the others all is written a second time, so
// that those pay nothing for it.

// lanes is the kernel under construction.
type lanes struct {
	encoder
	k *ptx.Kernel

	x, firsts, valid                  ptx.Value
	words, scales, zeros, tokenScales ptx.Value
	turned, perToken                  ptx.Value    // what is rounded with feedback, see [encoder.fedKernel]
	ranges                            [4]ptx.Value // see [fedRange]
	lane, row, head, rowAndHead, unit ptx.Value
	tile                              ptx.Value // of shared memory
	factors                           ptx.Value // a number a token, behind the tile
	voting                            []ptx.Value
}

var laneElems = map[ttir.Elem]ptx.Elem{ttir.F16: ptx.F16, ttir.BF16: ptx.BF16}

// byLanes reports whether this kernel makes the codes. Tensor units rotate numbers of 16 bits, for
// which 1 and -1 are exact.
func (e encoder) byLanes() bool {
	f := e.format
	return f.Keys == f.PerChannel && f.Rotate && e.from != ttir.F32 && f.Spec.InLane(f.Group) && f.HeadDim%ptx.Lanes == 0
}

// pitch is how many words lie between a row of the tile and the next: four more than it has, so
// that lanes that take rows beside one another do not meet in a bank. A row has a word a channel of
// keys, of two tokens, and else a word for two channels of a token.
func (l *lanes) pitch() int {
	if l.format.Keys {
		return l.format.HeadDim + 4
	}
	return l.format.HeadDim/2 + 4
}

// tileBytes is the size of the tile.
func (l *lanes) tileBytes() int {
	rows := l.atOnce()
	if l.format.Keys {
		rows /= 2
	}
	return rows * l.pitch() * 4
}

// laneKernel writes it, for a grid of [B·K, T/…] programs of a warp.
//
//	x      [B, …, K, D], of 16 bits
//	first  int32 [B]: where a row's tokens begin; past the end of x, its last token repeats
//	valid  uint8 [B, T], where some tokens are not valid
//	-> the arrays of [encoder.outputs]
func (e encoder) laneKernel() *ptx.Kernel {
	f := e.format
	k := ptx.New("encode_lanes")
	k.Registers = 255
	switch {
	case f.Group == ptx.Lanes:
		k.Registers = 128 // as many programs as an H100 gets of a prompt of 2,048
	case !f.Keys:
		k.Registers = 168
	}
	l := &lanes{encoder: e, k: k, x: k.Pointer(), firsts: k.Pointer()}
	if e.masked {
		l.valid = k.Pointer()
	}
	if !e.fed {
		l.words = k.Pointer()
	}
	l.scales, l.zeros = k.Pointer(), k.Pointer()
	if f.TokenScales {
		l.tokenScales = k.Pointer()
	}
	if e.fed {
		l.turned, l.perToken = k.Pointer(), k.Pointer()
		for i := range l.ranges {
			l.ranges[i] = k.Pointer()
		}
	}
	l.lane, l.rowAndHead, l.unit = k.Lane(), k.Program(0), k.Program(1)
	l.row, l.head = k.Div(l.rowAndHead, k.Int(e.heads)), k.Rem(l.rowAndHead, k.Int(e.heads))
	l.tile = k.Shared(l.tileBytes() + e.atOnce()*4)
	l.factors = k.Add(l.tile, k.Int(l.tileBytes()))

	usual := l.read()
	scaled, plain, votes, end := k.NewLabel(), k.NewLabel(), k.NewLabel(), k.NewLabel()
	k.Branch(scaled, usual)
	l.scaleTokens(false)
	k.Jump(votes)
	k.Here(scaled)
	k.Branch(plain, l.scaleTokens(true))
	k.Here(votes)
	l.encode(false)
	k.Jump(end)
	k.Here(plain)
	l.encode(true)
	k.Here(end)
	return k
}

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
		token := k.Add(k.Add(k.Mul(l.rowAndHead, k.Int(l.tokens)), k.Mul(l.unit, k.Int(l.atOnce()))), k.Add(g, k.Int(16*q+8*i)))
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
		token := k.Add(k.Mul(l.rowAndHead, k.Int(l.tokens)), k.Mul(l.unit, k.Int(l.atOnce())))
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

// encode makes ranges and codes of what is in the tile. usual says that all has a vote.
func (l *lanes) encode(usual bool) {
	if l.format.Keys {
		l.encodeKeys(usual)
	} else {
		l.encodeValues(usual)
	}
}

// finiteBits sets the bits of elements that are finite numbers.
func (l *lanes) finiteBits(list []ptx.Value) []ptx.Value {
	k, bits := l.k, make([]ptx.Value, len(list)/32)
	for i, x := range list {
		bit := k.Select(k.Finite(x), k.Bits(1<<(i%32)), k.Int(0))
		if i%32 > 0 {
			bit = k.Or(bits[i/32], bit)
		}
		bits[i/32] = bit
	}
	return bits
}

// encodeValues makes those of values: a lane has a token, and each turn is a group of its channels.
func (l *lanes) encodeValues(usual bool) {
	k, f := l.k, l.format
	valid := k.Select(k.Equal(k.And(k.ShiftRight(l.voting[0], l.lane), k.Int(1)), k.Int(0)), k.Int(0), k.Bits(math.MaxUint32))
	row := k.Add(l.tile, k.Mul(l.lane, k.Int(l.pitch()*4)))
	block := l.block(0)
	turn, next := k.Variable(k.Int(0)), k.NewLabel()
	k.Here(next)
	at := k.Add(row, k.Mul(turn, k.Int(f.Group*2)))
	var group numbers.LaneGroup
	for offset := 0; offset < f.Group*2; offset += 16 {
		for _, word := range k.LoadShared(4, at, offset) {
			group.X = append(group.X, k.Low(laneElems[l.from], word), k.High(laneElems[l.from], word))
		}
	}
	if !usual {
		for _, bits := range l.finiteBits(group.X) {
			group.Usable, group.Voting = append(group.Usable, k.And(bits, valid)), append(group.Voting, valid)
		}
	}
	out := f.Spec.EncodeInLane(k, group, l.from)
	l.storeRange(k.Add(k.Mul(k.Add(k.Mul(block, k.Int(f.Groups())), turn), k.Int(BlockTokens)), l.lane), out)
	l.store(out.Codes, func(p Plane, first int) ptx.Value {
		word := k.Add(k.Div(l.lane, k.Int(p.Fields)), k.Int(p.First))
		channel := k.Add(k.Add(k.Mul(turn, k.Int(f.Group)), k.Int(first)), k.And(l.lane, k.Int(p.Fields-1)))
		return k.Add(k.Mul(k.Add(k.Mul(block, k.Int(f.WordsOfPart())), word), k.Int(f.HeadDim)), channel)
	})
	k.Set(turn, k.Add(turn, k.Int(1)))
	if f.Groups() > 1 {
		k.Branch(next, k.Less(turn, k.Int(f.Groups())))
	}
}

// storeRange writes scale and zero point of the lane's group.
func (l *lanes) storeRange(place ptx.Value, out numbers.LaneCodes) {
	size := numbers.StoredBytes(l.format.Spec.Scales.KernelElem(l.from))
	l.k.StoreLow(size, l.k.At(l.scales, place, size), 0, out.Scales)
	l.k.StoreLow(size, l.k.At(l.zeros, place, size), 0, out.Zeros)
}

// encodeKeys makes those of keys: a lane has a channel, and each turn is 32 of them.
func (l *lanes) encodeKeys(usual bool) {
	k, f := l.k, l.format
	unit := k.Mul(k.Add(k.Mul(k.Add(k.Mul(l.unit, k.Int(l.batch)), l.row), k.Int(l.heads)), l.head), k.Int(f.HeadDim))
	fedUnit := k.Mul(k.Add(k.Mul(l.rowAndHead, k.Int(l.tokens/f.Group)), l.unit), k.Int(f.HeadDim))
	layout := f.Words()
	l.channels(func(column, channel ptx.Value) {
		read := make([]ptx.Value, f.Group)
		group := numbers.LaneGroup{X: l.column(column, func(token int, x, factor ptx.Value) ptx.Value {
			read[token] = x
			if !f.TokenScales {
				return x
			}
			units := k.FMul(x, factor)
			if !usual { // where they may be too large
				units = k.FMin(k.FMax(units, k.Float(-math.MaxFloat32)), k.Float(math.MaxFloat32))
				units = k.Select(k.Finite(x), units, x)
			}
			return units
		})}
		if !usual {
			group.Voting = l.voting
			for i, bits := range l.finiteBits(read) {
				group.Usable = append(group.Usable, k.And(bits, l.voting[i]))
			}
		}
		out := f.Spec.EncodeInLane(k, group, l.from)
		l.storeRange(k.Add(unit, channel), out)
		if l.fed {
			l.storeFedRange(k.Add(fedUnit, channel), out)
			return
		}
		l.store(out.Codes, func(p Plane, first int) ptx.Value {
			word := k.Div(channel, k.Int(p.Fields))
			part := k.Add(k.Mul(l.block(first/BlockTokens), k.Int(layout.Parts)), k.Div(word, k.Int(p.Count)))
			word = k.Add(k.Mul(part, k.Int(f.WordsOfPart())), k.Add(k.Rem(word, k.Int(p.Count)), k.Int(p.First)))
			token := k.Add(k.Int(first%BlockTokens), k.And(l.lane, k.Int(p.Fields-1)))
			return k.Add(k.Mul(word, k.Int(BlockTokens)), token)
		})
	})
}

// storeFedRange writes how the lane's channel is to be rounded: see [fedRange].
func (l *lanes) storeFedRange(place ptx.Value, out numbers.LaneCodes) {
	k := l.k
	last, nan := float32(int(1)<<l.format.Bits-1), k.Float(float32(math.NaN()))
	width := k.Select(k.FLess(k.Float(0), out.Width), out.Width, k.Float(1))
	perStep := k.Select(k.FLess(k.Float(0), out.Scale), k.FQuotient(k.Float(1), width), nan)
	for i, x := range []ptx.Value{out.Scale, out.Zero, k.FAdd(out.Zero, k.FMul(out.Scale, k.Float(last/2))), perStep} {
		k.StoreLow(4, k.At(l.ranges[i], place, 4), 0, x)
	}
}

// store packs the codes of the lane's group and writes the words that lanes exchange: place says
// where the one lies that begins with an element of its lanes' groups.
func (l *lanes) store(codes []ptx.Value, place func(p Plane, first int) ptx.Value) {
	k, f := l.k, l.format
	for _, p := range f.Planes() {
		for first := 0; first < len(codes); first += p.Fields {
			packed := k.Int(0)
			for i := range p.Fields {
				x := codes[first+i]
				if p.Low > 0 {
					x = k.ShiftRight(x, k.Int(p.Low))
				}
				if p.Low+p.Width < f.Bits {
					x = k.And(x, k.Int(1<<p.Width-1))
				}
				if i > 0 {
					x = k.ShiftLeft(x, k.Int(i*p.Width))
				}
				packed = k.Or(packed, x)
			}
			k.StoreLow(4, k.At(l.words, place(p, first), 4), 0, l.exchange(packed, p.Fields, p.Width))
		}
	}
}

// exchange turns words of so many lanes around: lane i gets field i of the word of each, that of
// lane j as field j. In each round fields of lanes whose numbers differ in a bit change places.
func (l *lanes) exchange(x ptx.Value, fields, width int) ptx.Value {
	k := l.k
	for mask := fields / 2; mask > 0; mask /= 2 {
		var low uint32 // fields whose number has no bit of mask
		for i := range fields {
			if i&mask == 0 {
				low |= (1<<width - 1) << (i * width)
			}
		}
		lower := k.Equal(k.And(l.lane, k.Int(mask)), k.Int(0))
		own := k.Select(lower, k.Bits(low), k.Bits(^low))
		other, shift := k.Across(x, mask), k.Int(mask*width)
		other = k.Select(lower, k.ShiftLeft(other, shift), k.ShiftRight(other, shift))
		x = k.Or(k.And(x, own), k.And(other, k.Xor(own, k.Bits(math.MaxUint32))))
	}
	return x
}
