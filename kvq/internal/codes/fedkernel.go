package codes

import (
	"math"
	"slices"

	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/ptx"
)

// Feedback ([numbers.Feedback]) as a kernel for CUDA that packs what it rounds. A lane has a token
// of a head, and goes through its channels in blocks of 16, the last one first; a block of channels
// is half a word, a word, or some.
//
// What the errors of the channels behind a block add to its channels is a product of [32 tokens,
// channels behind] and [channels behind, 16], by tensor units. Both sides are sums of two bfloat16
// numbers, and of four products the three large ones are made, which is right to 2^-16.
//
// A block's errors lie in shared memory, 2 KB, as words of two channels: in row i those of channels
// 2i and 2i+1, in row 8+i what these miss. The lane of a token writes, and tensor units read as
// [ptx.Kernel.Units] says; so that neither meets itself in a bank, token t lies at t ^ 8·(row%4).
// Before its errors are known, the place has the block's sums, and then its weights and ranges.

// fedChannels are the channels of a block, and fedSlot is the size of its errors in bytes.
const (
	fedChannels = 16
	fedSlot     = fedChannels * ptx.Lanes * 4
)

// fedFits reports whether the kernel can be written beside that of e.
func (e encoder) fedFits() bool {
	f := e.format
	return f.Keys && f.PerChannel && f.HeadDim%fedChannels == 0 && f.HeadDim <= 256 && e.batch*e.heads <= math.MaxUint16
}

// fedCall makes the words of what [encoder.kernel] wrote.
func (e encoder) fedCall(made []*Node, factor *Node, words shapes.Shape) *Node {
	inputs := append(slices.Clone(made), factor)
	return gx.PTX(e.fedKernel(), e.fedGrid(), inputs, words)[0]
}

func (e encoder) fedGrid() [2]int { return [2]int{e.slots / ptx.Lanes, e.batch * e.heads} }

// fedRange is how a channel's numbers are rounded.
type fedRange struct {
	scale, zero ptx.Value // value = scale·code + zero
	middle      ptx.Value // of the range
	perStep     ptx.Value // 1 / width of a code; NaN where all codes are 0
}

// fedKernel writes it, for a grid of [slots/32, B·K] programs.
//
//	units                          [B·K, slots, D] float32, NaN where a token has no vote; or of 16 bits and
//	factors                        [B·K, slots] float32: of their tokens, NaN where one has no vote
//	scale, zero, middle, per step  [B·K, slots/G, D] float32, see fedRange
//	factor                         [B·K, D, D] float32
//	-> words as of [Blocks]
func (e encoder) fedKernel() *ptx.Kernel {
	f, dim := e.format, e.format.HeadDim
	k := ptx.New("feedback_codes")
	k.Registers = 128
	units := k.Pointer()
	var factors ptx.Value
	if e.byLanes() {
		factors = k.Pointer()
	}
	ranges := []ptx.Value{k.Pointer(), k.Pointer(), k.Pointer(), k.Pointer()}
	factor, out := k.Pointer(), k.Pointer()
	block, rowAndHead, lane := k.Program(0), k.Program(1), k.Lane()
	row, head := k.Div(rowAndHead, k.Int(e.heads)), k.Rem(rowAndHead, k.Int(e.heads))
	ofHead := k.Add(k.Mul(k.Add(k.Mul(block, k.Int(e.batch)), row), k.Int(e.heads)), head)
	out = k.At(out, lane, 4)
	empty, end := k.NewLabel(), k.NewLabel()
	if e.slots > e.tokens {
		k.Branch(empty, k.Less(k.Int(e.tokens/ptx.Lanes-1), block))
	}
	token := k.Add(k.Mul(rowAndHead, k.Int(e.slots)), k.Add(k.Mul(block, k.Int(ptx.Lanes)), lane))
	if e.byLanes() {
		factors = k.LoadWord(k.At(factors, token, 4), 0)
	}
	units = k.AtBy(units, token, k.Int(dim*e.unitBytes()))
	group := k.Add(k.Mul(rowAndHead, k.Int(e.slots/f.Group)), k.Div(block, k.Int(f.Group/ptx.Lanes)))
	group = k.Mul(group, k.Int(dim))
	factor = k.At(factor, k.Mul(rowAndHead, k.Int(dim*dim)), 4)
	// Where block 0 would lie: its errors are not needed.
	slots := k.Sub(k.Shared(max(1, dim/fedChannels-1)*fedSlot), k.Int(fedSlot))

	first := k.Variable(k.Int(dim - fedChannels))
	pending := k.Variable(k.Int(0)) // the second half of a word of 1 bit a channel
	top := k.NewLabel()
	k.Here(top)
	// All of the block that lies in memory is asked for here, so that it comes while sums are made.
	read := e.fedRead(k, k.At(units, first, e.unitBytes()))
	// Of the square of weights, a lane has half a row.
	at := k.Add(k.Mul(k.Add(first, k.ShiftRight(lane, k.Int(1))), k.Int(dim)), k.Add(first, k.Mul(k.And(lane, k.Int(1)), k.Int(8))))
	square := append(k.LoadWords(k.At(factor, at, 4), 0), k.LoadWords(k.At(factor, at, 4), 16)...)
	// Of the ranges, lanes 4i to 4i+3 have the i-th array; the others read the same again.
	array, quad := k.And(k.ShiftRight(lane, k.Int(2)), k.Int(3)), k.And(lane, k.Int(3))
	from := ranges[0]
	for i := 1; i < len(ranges); i++ {
		from = k.Select(k.Equal(array, k.Int(i)), ranges[i], from)
	}
	own := k.LoadWords(k.At(from, k.Add(k.Add(group, first), k.Mul(quad, k.Int(4))), 4), 0)

	slot := k.Add(slots, k.Mul(k.ShiftRight(first, k.Int(4)), k.Int(fedSlot)))
	if dim > fedChannels {
		// The first block's is not there; when it is its turn, no errors are needed any more.
		slot = k.Select(k.Equal(first, k.Int(0)), k.Add(slots, k.Int(fedSlot)), slot)
	} else {
		slot = k.Add(slots, k.Int(fedSlot))
	}
	fed := e.fedBehind(k, first, factor, slots, slot, lane)
	k.Await(0)
	at = k.Add(slot, k.Mul(lane, k.Int(32)))
	k.StoreShared(at, 0, square[:4]...)
	k.StoreShared(at, 16, square[4:]...)
	const ofRanges = fedChannels * fedChannels * 4
	k.StoreShared(k.Add(slot, k.Mul(k.And(lane, k.Int(15)), k.Int(16))), ofRanges, own...)
	k.Await(0)

	x := e.fedUnits(k, read, factors)
	codes, wrong := make([]ptx.Value, fedChannels), make([]ptx.Value, fedChannels)
	var four [][]ptx.Value // scales, zero points, middles and steps of four channels
	for channel := fedChannels - 1; channel >= 0; channel-- {
		if channel%4 == 3 {
			four = nil
			for i := range ranges {
				four = append(four, k.LoadShared(4, slot, ofRanges+i*fedChannels*4+(channel-3)*4))
			}
		}
		in := channel % 4
		codes[channel], wrong[channel] = e.fedRound(k, x[channel], fed[channel], fedRange{four[0][in], four[1][in], four[2][in], four[3][in]})
		var weights []ptx.Value
		for i := range channel {
			if i%4 == 0 {
				weights = k.LoadShared(4, slot, (channel*fedChannels+i)*4)
			}
			fed[i] = k.FMulAdd(wrong[channel], weights[i%4], fed[i])
		}
	}
	e.fedStore(k, first, codes, ofHead, out, pending)
	k.Branch(end, k.Equal(first, k.Int(0)))
	k.Await(0)
	for i := range fedChannels / 2 {
		near, miss := k.InHalves(wrong[2*i], wrong[2*i+1])
		at := k.Add(slot, k.Mul(k.Xor(lane, k.Int(i%4*8)), k.Int(4)))
		k.StoreShared(at, i*ptx.Lanes*4, near)
		k.StoreShared(at, (8+i)*ptx.Lanes*4, miss)
	}
	k.Await(0)
	k.Set(first, k.Sub(first, k.Int(fedChannels)))
	k.Jump(top)
	if e.slots > e.tokens {
		k.Here(empty)
		words := f.blockWords() / ptx.Lanes // of a lane
		for i := range words {
			k.StoreLow(4, k.At(out, k.Mul(ofHead, k.Int(words)), ptx.Lanes*4), i*ptx.Lanes*4, k.Int(0))
		}
	}
	k.Here(end)
	return k
}

// unitBytes is the size of a number that is to be rounded.
func (e encoder) unitBytes() int {
	if e.byLanes() {
		return 2
	}
	return 4
}

// fedRead reads the numbers of a block of channels as they lie.
func (e encoder) fedRead(k *ptx.Kernel, at ptx.Value) (words []ptx.Value) {
	for offset := 0; offset < fedChannels*e.unitBytes(); offset += 16 {
		words = append(words, k.LoadWords(at, offset)...)
	}
	return words
}

// fedUnits are the numbers that fedRead read.
func (e encoder) fedUnits(k *ptx.Kernel, words []ptx.Value, factor ptx.Value) (x []ptx.Value) {
	if !e.byLanes() {
		return words
	}
	for _, w := range words {
		x = append(x, k.FMul(k.Low(laneElems[e.from], w), factor), k.FMul(k.High(laneElems[e.from], w), factor))
	}
	return x
}

// fedBehind is what the errors of the channels behind a block add to each of its channels. Of the
// product's columns, number 8h + c is channel 2c + h: then a lane reads neighbours, and has four in
// a row.
func (e encoder) fedBehind(k *ptx.Kernel, first, factor, slots, slot, lane ptx.Value) []ptx.Value {
	dim := e.format.HeadDim
	g, t := k.ShiftRight(lane, k.Int(2)), k.And(lane, k.Int(3))
	var sums [2][2][4]ptx.Value // by half of the tokens and of the columns
	for i := range sums {
		for h := range sums[i] {
			for j := range sums[i][h] {
				sums[i][h][j] = k.Variable(k.Float(0))
			}
		}
	}
	behind := k.Variable(k.Add(first, k.Int(fedChannels)))
	turn, done := k.NewLabel(), k.NewLabel()
	// Weights of rows 2t, 2t+1, 2t+8 and 2t+9, of channels 2g and 2g+1, of the next turn.
	row := k.Mul(t, k.Int(2*dim))
	weightsAt := func(behind ptx.Value) (list [4][]ptx.Value) {
		behind = k.Min(behind, k.Int(dim-fedChannels))
		at := k.At(factor, k.Add(k.Add(k.Mul(behind, k.Int(dim)), row), k.Add(first, k.Mul(g, k.Int(2)))), 4)
		for i, r := range []int{0, 1, 8, 9} {
			list[i] = k.LoadPair(at, r*dim*4)
		}
		return list
	}
	var next [4][2]ptx.Value
	for i, pair := range weightsAt(behind) {
		next[i] = [2]ptx.Value{k.Variable(pair[0]), k.Variable(pair[1])}
	}
	k.Branch(done, k.Equal(behind, k.Int(dim)))
	k.Here(turn)
	var weights [2][2][2]ptx.Value // near and what that misses, by half of the columns, of half of the rows
	for h := range 2 {
		for r := range 2 {
			near, miss := k.InHalves(next[2*r][h], next[2*r+1][h])
			weights[0][h][r], weights[1][h][r] = near, miss
		}
	}
	for i, pair := range weightsAt(k.Add(behind, k.Int(fedChannels))) {
		for j, w := range pair {
			k.Set(next[i][j], w)
		}
	}
	errors := k.Add(slots, k.Mul(k.ShiftRight(behind, k.Int(4)), k.Int(fedSlot)))
	// Rows t and t+4 of words; token g+8i lies at (g+8i) ^ 8t.
	errors = k.Add(errors, k.Mul(t, k.Int(ptx.Lanes*4)))
	for i := range sums {
		var wrong [2][4]ptx.Value // near and what that misses
		for part := range wrong {
			for j := range 4 {
				token := k.Xor(k.Add(g, k.Int(16*i+j%2*8)), k.Mul(t, k.Int(8)))
				wrong[part][j] = k.LoadShared(1, k.Add(errors, k.Mul(token, k.Int(4))), (8*part+j/2*4)*ptx.Lanes*4)[0]
			}
		}
		for h := range sums[i] {
			c := sums[i][h]
			for _, by := range [][2]int{{0, 1}, {1, 0}, {0, 0}} {
				c = k.Units(ptx.BF16, wrong[by[0]], weights[by[1]][h], c)
			}
			for j, v := range c {
				k.Set(sums[i][h][j], v)
			}
		}
	}
	k.Set(behind, k.Add(behind, k.Int(fedChannels)))
	k.Branch(turn, k.Less(behind, k.Int(dim)))
	k.Here(done)
	// To lanes that have a token each, by way of the slot. Quad q of token n lies at q ^ (n/2)%4.
	k.Await(0)
	for i := range sums {
		for half := range 2 {
			token := k.Add(g, k.Int(16*i+8*half))
			quad := k.Xor(t, k.And(k.ShiftRight(token, k.Int(1)), k.Int(3)))
			at := k.Add(slot, k.Add(k.Mul(token, k.Int(64)), k.Mul(quad, k.Int(16))))
			c := sums[i]
			k.StoreShared(at, 0, c[0][2*half], c[1][2*half], c[0][2*half+1], c[1][2*half+1])
		}
	}
	k.Await(0)
	var fed []ptx.Value
	for q := range 4 {
		quad := k.Xor(k.Int(q), k.And(k.ShiftRight(lane, k.Int(1)), k.Int(3)))
		fed = append(fed, k.LoadShared(4, k.Add(k.Add(slot, k.Mul(lane, k.Int(64))), k.Mul(quad, k.Int(16))), 0)...)
	}
	return fed
}

// fedRound makes the code of a channel, and what it has wrong. NaN gets code 0.
func (e encoder) fedRound(k *ptx.Kernel, x, fed ptx.Value, r fedRange) (code, wrong ptx.Value) {
	last := float32(int(1)<<e.format.Bits - 1)
	const whole = 3 << 22 // from here on, to 2^24, float32 has whole numbers alone, in its low bits
	target := k.FAdd(x, fed)
	target = k.Select(k.Finite(target), target, x)
	steps := k.FMulAdd(k.FSub(target, r.middle), r.perStep, k.Float(last/2))
	number := k.FAdd(k.FMin(k.FMax(steps, k.Float(0)), k.Float(last)), k.Float(whole))
	code = k.And(number, k.Int(int(last)))
	wrong = k.FSub(x, k.FMulAdd(k.FSub(number, k.Float(whole)), r.scale, r.zero))
	return code, k.Select(k.Finite(wrong), wrong, k.Float(0))
}

// fedStore packs the codes of a block of channels and writes their words.
func (e encoder) fedStore(k *ptx.Kernel, first ptx.Value, codes []ptx.Value, ofHead, out, pending ptx.Value) {
	f := e.format
	layout, ofPart := f.Words(), f.WordsOfPart()
	for _, p := range f.Planes() {
		field := func(i int) ptx.Value {
			x := codes[i]
			if p.Low > 0 {
				x = k.ShiftRight(x, k.Int(p.Low))
			}
			if p.Low+p.Width < f.Bits {
				x = k.And(x, k.Int(1<<p.Width-1))
			}
			return x
		}
		for from := 0; from < fedChannels; from += p.Fields {
			word := field(from)
			for i := 1; i < min(p.Fields, fedChannels); i++ {
				word = k.Or(word, k.ShiftLeft(field(from+i), k.Int(i*p.Width)))
			}
			whole := k.Equal(k.Int(0), k.Int(0))
			if p.Fields > fedChannels {
				second := k.And(first, k.Int(fedChannels)) // channels, and so bits
				whole = k.Equal(second, k.Int(0))
				word = k.Or(k.ShiftLeft(word, second), k.Select(whole, pending, k.Int(0)))
				k.Set(pending, word)
			}
			index := k.Add(k.Div(first, k.Int(p.Fields)), k.Int(from/p.Fields))
			part := k.Add(k.Mul(ofHead, k.Int(layout.Parts)), k.Div(index, k.Int(p.Count)))
			place := k.Add(k.Add(k.Mul(part, k.Int(ofPart)), k.Int(p.First)), k.Rem(index, k.Int(p.Count)))
			k.Store(whole, k.At(out, place, ptx.Lanes*4), 0, word)
		}
	}
}
