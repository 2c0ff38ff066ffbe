package codes

import (
	"math"

	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/ptx"
)

// Feedback ([numbers.Feedback]) as a kernel for CUDA that packs what it rounds. A lane has a token
// of a head, and goes through its channels in blocks of 16, the last one first. What it rounded
// wrong lies in shared memory, which no other lane touches; a block of channels is half a word, a
// word, or some.

// fedChannels are the channels of a block, and fedRows how many of those behind it are added in one
// turn: so many weights are under way at once.
const fedChannels, fedRows = 16, 4

// fedFits reports whether the kernel can be written beside that of e.
func (e encoder) fedFits() bool {
	f := e.format
	return f.Keys && f.PerChannel && f.HeadDim%fedChannels == 0 && f.HeadDim <= 256 && e.batch*e.heads <= math.MaxUint16
}

// fedCall makes the words of what [encoder.kernel] wrote.
func (e encoder) fedCall(units *Node, ranges []*Node, factor *Node, words shapes.Shape) *Node {
	inputs := append(append([]*Node{units}, ranges...), factor)
	return gx.PTX(e.fedKernel(), e.fedGrid(), inputs, words)[0]
}

func (e encoder) fedGrid() [2]int { return [2]int{e.tokens / ptx.Lanes, e.batch * e.heads} }

// fedRange is how a channel's numbers are rounded.
type fedRange struct {
	scale, zero ptx.Value // value = scale·code + zero
	middle      ptx.Value // of the range
	perStep     ptx.Value // 1 / width of a code; NaN where all codes are 0
}

// fedKernel writes it, for a grid of [T/32, B·K] programs.
//
//	units                          [B·K, D, T] float32, NaN where a token has no vote
//	scale, zero, middle, per step  [B·K, T/G, D] float32, see fedRange
//	factor                         [B·K, D, D] float32
//	-> words as of [Blocks]
func (e encoder) fedKernel() *ptx.Kernel {
	f, dim := e.format, e.format.HeadDim
	k := ptx.New("feedback_codes")
	k.Registers = 128 // as many programs as have room for their errors
	units := k.Pointer()
	ranges := []ptx.Value{k.Pointer(), k.Pointer(), k.Pointer(), k.Pointer()}
	factor, out := k.Pointer(), k.Pointer()
	block, rowAndHead, lane := k.Program(0), k.Program(1), k.Lane()
	// Where the numbers, ranges and weights of the head's first channel lie.
	units = k.At(units, k.Add(k.Mul(rowAndHead, k.Int(dim*e.tokens)), k.Add(k.Mul(block, k.Int(ptx.Lanes)), lane)), 4)
	group := k.Add(k.Mul(rowAndHead, k.Int(e.tokens/f.Group)), k.Div(block, k.Int(f.Group/ptx.Lanes)))
	group = k.Mul(group, k.Int(dim))
	factor = k.At(factor, k.Mul(rowAndHead, k.Int(dim*dim)), 4)
	// The errors of channel 0, if it had a place: those of the first block are not needed.
	const ofChannel = ptx.Lanes * 4 // bytes
	errors := k.Add(k.Shared(max(1, dim-fedChannels)*ofChannel), k.Mul(lane, k.Int(4)))
	errors = k.Sub(errors, k.Int(fedChannels*ofChannel))
	row, head := k.Div(rowAndHead, k.Int(e.heads)), k.Rem(rowAndHead, k.Int(e.heads))
	ofHead := k.Add(k.Mul(k.Add(k.Mul(block, k.Int(e.batch)), row), k.Int(e.heads)), head)
	out = k.At(out, lane, 4)

	first := k.Variable(k.Int(dim - fedChannels))
	pending := k.Variable(k.Int(0)) // the second half of a word of 1 bit a channel
	top, end := k.NewLabel(), k.NewLabel()
	k.Here(top)
	// The block's numbers are asked for here, so that they come while sums are made.
	at := k.At(units, k.Mul(first, k.Int(e.tokens)), 4)
	x := make([]ptx.Value, fedChannels)
	for i := range x {
		x[i] = k.LoadWord(at, i*e.tokens*4)
	}
	fed := e.fedBehind(k, first, factor, errors, ofChannel)

	own := k.At(factor, k.Add(k.Mul(first, k.Int(dim)), first), 4)
	codes, wrong := make([]ptx.Value, fedChannels), make([]ptx.Value, fedChannels)
	var four [][]ptx.Value // scales, zero points, middles and steps of four channels
	for channel := fedChannels - 1; channel >= 0; channel-- {
		if channel%4 == 3 {
			four = nil
			for _, r := range ranges {
				four = append(four, k.LoadWords(k.At(r, k.Add(group, first), 4), (channel-3)*4))
			}
		}
		at := channel % 4
		codes[channel], wrong[channel] = e.fedRound(k, x[channel], fed[channel], fedRange{four[0][at], four[1][at], four[2][at], four[3][at]})
		var weights []ptx.Value
		for i := range channel {
			if i%4 == 0 {
				weights = k.LoadWords(own, (channel*dim+i)*4)
			}
			k.Set(fed[i], k.FMulAdd(wrong[channel], weights[i%4], fed[i]))
		}
	}
	e.fedStore(k, first, codes, ofHead, out, pending)
	k.Branch(end, k.Equal(first, k.Int(0)))
	at = k.Add(errors, k.Mul(first, k.Int(ofChannel)))
	for i, w := range wrong {
		k.StoreShared(at, i*ofChannel, w)
	}
	k.Set(first, k.Sub(first, k.Int(fedChannels)))
	k.Jump(top)
	k.Here(end)
	return k
}

// fedBehind adds to each channel of a block what the errors of the channels behind it say.
func (e encoder) fedBehind(k *ptx.Kernel, first, factor, errors ptx.Value, ofChannel int) []ptx.Value {
	dim := e.format.HeadDim
	fed := make([]ptx.Value, fedChannels)
	for i := range fed {
		fed[i] = k.Variable(k.Float(0))
	}
	behind := k.Variable(k.Add(first, k.Int(fedChannels)))
	turn, done := k.NewLabel(), k.NewLabel()
	weights := k.Variable(k.At(factor, k.Add(k.Mul(behind, k.Int(dim)), first), 4))
	wrong := k.Variable(k.Add(errors, k.Mul(behind, k.Int(ofChannel))))
	k.Branch(done, k.Equal(behind, k.Int(dim)))
	k.Here(turn)
	var rows [fedRows][]ptx.Value
	for r := range rows {
		for part := range fedChannels / 4 {
			rows[r] = append(rows[r], k.LoadWords(weights, (r*dim+4*part)*4)...)
		}
	}
	for r, weight := range rows {
		missed := k.LoadShared(1, wrong, r*ofChannel)[0]
		for i := range fed {
			k.Set(fed[i], k.FMulAdd(missed, weight[i], fed[i]))
		}
	}
	k.Set(behind, k.Add(behind, k.Int(fedRows)))
	k.Set(weights, k.At(weights, k.Int(fedRows*dim), 4))
	k.Set(wrong, k.Add(wrong, k.Int(fedRows*ofChannel)))
	k.Branch(turn, k.Less(behind, k.Int(dim)))
	k.Here(done)
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
