package codes

import (
	"math"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/ttir"
	"github.com/kvqbook/kvqbook/kvq/internal/numbers"
)

// Encode as a kernel for CUDA: a program reads some tokens of a head once, makes their ranges and
// codes in its registers, and writes packed words. By graph operations a prompt is written to
// memory as float32 several times on the way. What presets ask for has a faster one, in
// lanekernel.go.

// encoder is what the kernel is written for.
type encoder struct {
	format Format
	from   ttir.Elem // of keys or values

	batch, heads, tokens int  // B, K, T
	slots                int  // of the arrays, T or more: what is beyond T is 0
	all                  int  // tokens of x, of which each row has its own T
	masked               bool // some tokens are not valid
	// The codes are made by what follows, with feedback: the kernel writes what that needs.
	fed bool
}

// elems are the elements of a kernel by those of a graph.
var elems = map[dtypes.DType]ttir.Elem{dtypes.Float32: ttir.F32, dtypes.Float16: ttir.F16, dtypes.BFloat16: ttir.BF16}

// encoderOf makes it for n tokens of each row of x [B, T, K, D], and arrays of so many slots; ok is
// false where the kernel cannot run.
func (f Format) encoderOf(x *Node, n, slots int, valid, factor *Node) (e encoder, ok bool) {
	g, d := x.Graph(), dims(x)
	e = encoder{format: f, from: elems[x.DType()], batch: d[0], tokens: n, slots: slots, all: d[1], heads: d[2], masked: valid != nil, fed: factor != nil}
	return e, gx.RunsTriton(g) && e.fits() && (!e.fed || e.fedFits())
}

// fits reports whether the kernel can be written: blocks of a kernel are powers of two, and it
// counts in int32.
func (e encoder) fits() bool {
	f := e.format
	power := func(n int) bool { return n > 0 && n&(n-1) == 0 }
	if e.from == "" || !f.Packed || !f.Spec.InKernel(f.Group) || !power(f.HeadDim) || f.HeadDim > 256 {
		return false
	}
	words := f.Words()
	if words.Bits != 32 || f.padding() > 0 || f.PerChannel && f.Group%BlockTokens != 0 || !f.PerChannel && f.TokenScales {
		return false
	}
	return e.tokens%e.atOnce() == 0 && e.slots%e.atOnce() == 0 && e.atOnce()*f.HeadDim <= 1<<14 && e.batch*e.heads*e.all*f.HeadDim <= math.MaxInt32
}

// atOnce is how many tokens a program takes.
func (e encoder) atOnce() int {
	if e.format.PerChannel {
		return e.format.Group
	}
	return BlockTokens
}

// warps is how many run a program: 16 numbers a thread, more in large programs.
func (e encoder) warps() int { return max(1, min(8, e.atOnce()*e.format.HeadDim/512)) }

// grid is programs by head and row, and by slot.
func (e encoder) grid() [2]int { return [2]int{e.batch * e.heads, e.slots / e.atOnce()} }

// encode is [Format.EncodeFed] for x [B, …, K, D], of which a row's tokens begin at first, int32
// [B].
func (e encoder) encode(x, first, valid, factor *Node) Blocks {
	inputs := []*Node{x, first}
	if e.format.Rotate && !e.byLanes() {
		inputs[0] = numbers.Rotate(x)
	}
	if e.masked {
		inputs = append(inputs, ConvertDType(valid, dtypes.Uint8))
	}
	var out []*Node
	if outputs := e.outputs(x.DType()); e.byLanes() {
		out = gx.PTX(e.laneKernel(), e.grid(), inputs, outputs...)
	} else {
		out = gx.Triton(e.kernel(), e.warps(), 1, e.grid(), inputs, outputs...)
	}
	if e.fed {
		n := len(out) - e.fedInputs()
		words := e.fedCall(out[n:], factor, e.format.Arrays(e.batch, e.heads, e.slots, x.DType())[0].Shape)
		out = append([]*Node{words}, out[:n]...)
	}
	blocks, _ := e.format.Take(out)
	return blocks
}

// fedInputs is how many arrays the kernel writes for [encoder.fedKernel].
func (e encoder) fedInputs() int {
	if e.byLanes() {
		return 6
	}
	return 5
}

// outputs are the arrays that the kernel writes.
func (e encoder) outputs(cache dtypes.DType) (list []shapes.Shape) {
	for _, a := range e.format.Arrays(e.batch, e.heads, e.slots, cache) {
		if a.Kind != KindCodes || !e.fed {
			list = append(list, a.Shape)
		}
	}
	if e.fed {
		n, dim := e.batch*e.heads, e.format.HeadDim
		if e.byLanes() {
			list = append(list, shapes.Make(cache, n, e.slots, dim), shapes.Make(dtypes.Float32, n, e.slots))
		} else {
			list = append(list, shapes.Make(dtypes.Float32, n, e.slots, dim))
		}
		for range 4 {
			list = append(list, shapes.Make(dtypes.Float32, n, e.slots/e.format.Group, dim))
		}
	}
	return list
}

// kernel writes it, for a grid of [B·K, slots/…] programs.
//
//	x      [B, …, K, D], rotated where it is to be
//	first  int32 [B]: where a row's tokens begin; past the end of x, its last token repeats
//	valid  uint8 [B, T], where some tokens are not valid
//	-> the arrays of [encoder.outputs]
func (e encoder) kernel() *ttir.Kernel {
	f, dim := e.format, e.format.HeadDim
	t := ttir.New("encode")
	x, firsts := t.Pointer(e.from), t.Pointer(ttir.I32)
	var valid ttir.Value
	if e.masked {
		valid = t.Pointer(ttir.I8)
	}
	var words, tokenScales ttir.Value
	if !e.fed {
		words = t.Pointer(ttir.I32)
	}
	scaleElem := f.Spec.Scales.KernelElem(e.from)
	scales, zeros := t.Pointer(scaleElem), t.Pointer(scaleElem)
	if f.TokenScales {
		tokenScales = t.Pointer(ttir.I8)
	}
	var fed []ttir.Value
	for range e.fedInputs() {
		if e.fed {
			fed = append(fed, t.Pointer(ttir.F32))
		}
	}
	rowAndHead, unit := t.ProgramID(0), t.ProgramID(1)
	row, head := rowAndHead.DivInt(e.heads), rowAndHead.RemInt(e.heads)
	n := e.atOnce()

	// The block is [n, D] with groups along tokens, and else [n, D/G, G].
	shape, axis := []int{n, dim}, 0
	if !f.PerChannel {
		shape, axis = []int{n, f.Groups(), f.Group}, 2
	}
	rank := len(shape)
	channel := t.Range(shape[1], 1, rank)
	if !f.PerChannel {
		channel = ttir.Add(channel.MulInt(f.Group), t.Range(f.Group, 2, 3))
	}
	// Of the numbers, which are read as [n, D].
	at := ttir.Add(unit.MulInt(n), t.Range(n, 0, 2))
	at = ttir.Min(ttir.Add(at, ttir.Load(firsts, row)), t.Int(e.all-1))
	at = ttir.Add(at, row.MulInt(e.all)).MulInt(e.heads * dim)
	read := ttir.Load(x, ttir.Add(ttir.Add(at, head.MulInt(dim)), t.Range(dim, 1, 2)))
	numbersOf := read.ToFloat().Reshape(shape...)
	voting := ttir.LessOrEqual(t.Int(0), t.Fill(t.Int(0), shape...))
	if e.masked {
		token := ttir.Add(ttir.Add(row.MulInt(e.tokens), unit.MulInt(n)), t.Range(n, 0, rank))
		if e.slots > e.tokens {
			token = ttir.Min(token, t.Int(e.batch*e.tokens-1))
		}
		voting = ttir.Less(t.Int(0), ttir.Load(valid, token).Wide())
	}
	// What is stored: 0 where the program's slots are beyond the tokens.
	inUse := func(x ttir.Value) ttir.Value {
		if e.slots == e.tokens {
			return x
		}
		zero := t.Int(0)
		switch x.Elem {
		case ttir.I8:
			zero = zero.Byte()
		case ttir.F32, ttir.F16, ttir.BF16:
			zero = t.Float(0).Narrow(x.Elem)
		}
		return ttir.Select(ttir.Less(unit, t.Int(e.tokens/n)), x, zero)
	}
	// The first block of the unit, of this head.
	blocks := n / BlockTokens
	ofBlock := func(block ttir.Value) ttir.Value { // in units of what a head has in a block
		return ttir.Add(ttir.Add(ttir.Add(unit.MulInt(blocks), block).MulInt(e.batch), row).MulInt(e.heads), head)
	}
	var weights *ttir.Value
	if f.TokenScales {
		var stored, ofTokens ttir.Value
		stored, numbersOf, voting, ofTokens = numbers.TokenScalesInKernel(numbersOf, voting)
		weights = &ofTokens
		lane := t.Range(n, 0, 1)
		ttir.Store(tokenScales, ttir.Add(ofBlock(lane.DivInt(BlockTokens)).MulInt(BlockTokens), lane.RemInt(BlockTokens)), inUse(stored))
	}
	out := f.Spec.EncodeInKernel(numbersOf, voting, weights, axis, e.from)
	var place ttir.Value // of a scale
	if f.PerChannel {
		ofUnit := ttir.Add(ttir.Add(unit.MulInt(e.batch), row).MulInt(e.heads), head)
		place = ttir.Add(ofUnit.MulInt(dim), t.Range(dim, 0, 1))
	} else {
		place = ttir.Add(ttir.Add(ofBlock(t.Int(0)).MulInt(f.Groups()), t.Range(f.Groups(), 1, 2)).MulInt(BlockTokens), t.Range(n, 0, 2))
	}
	ttir.Store(scales, place, inUse(out.Scales))
	ttir.Store(zeros, place, inUse(out.Zeros))
	if !e.fed {
		e.store(words, inUse(out.Codes.Reshape(n, dim)), ofBlock)
		return t
	}
	nan := t.Float(float32(math.NaN()))
	turned := ttir.Add(ttir.Add(ttir.Add(rowAndHead.MulInt(e.slots), unit.MulInt(n)), t.Range(n, 0, rank)).MulInt(dim), channel)
	ttir.Store(fed[0], turned, ttir.Select(voting, numbersOf, nan))
	place = ttir.Add(ttir.Add(rowAndHead.MulInt(e.slots/n), unit).MulInt(dim), t.Range(dim, 0, 1))
	last := float32(int(1)<<f.Bits - 1)
	some := ttir.LessFloat(t.Float(0), out.Scale)
	width := ttir.Select(ttir.LessFloat(t.Float(0), out.Width), out.Width, t.Float(1))
	for i, x := range []ttir.Value{
		out.Scale, out.Zero, ttir.Add(out.Zero, out.Scale.MulFloat(last/2)), ttir.Select(some, ttir.Quotient(t.Float(1), width), nan),
	} {
		ttir.Store(fed[1+i], place, x)
	}
	return t
}

// store packs codes [n, D] and writes their words. ofBlock counts what a head has in a block.
func (e encoder) store(words, codes ttir.Value, ofBlock func(block ttir.Value) ttir.Value) {
	f, t, n, dim := e.format, codes.Kernel(), e.atOnce(), e.format.HeadDim
	layout, ofPart := f.Words(), f.WordsOfPart()
	for _, p := range f.Planes() {
		x := codes
		if p.Low > 0 {
			x = x.ShiftRight(p.Low)
		}
		if p.Low+p.Width < f.Bits {
			x = x.AndInt(1<<p.Width - 1)
		}
		var place ttir.Value
		if f.Keys {
			x = ttir.ShiftLeftBy(x.Reshape(n, dim/p.Fields, p.Fields), t.Range(p.Fields, 2, 3).MulInt(p.Width)).SumInt(2) // [n, words]
			token, word := t.Range(n, 0, 2), t.Range(dim/p.Fields, 1, 2)
			part := ttir.Add(ofBlock(token.DivInt(BlockTokens)).MulInt(layout.Parts), word.DivInt(p.Count))
			place = ttir.Add(ttir.Add(part.MulInt(ofPart), word.RemInt(p.Count).AddInt(p.First)).MulInt(BlockTokens), token.RemInt(BlockTokens))
		} else {
			x = ttir.ShiftLeftBy(x.Reshape(n/p.Fields, p.Fields, dim), t.Range(p.Fields, 1, 3).MulInt(p.Width)).SumInt(1) // [words, D]
			word, channel := t.Range(n/p.Fields, 0, 2), t.Range(dim, 1, 2)
			place = ttir.Add(ofBlock(word.DivInt(p.Count)).MulInt(ofPart), word.RemInt(p.Count).AddInt(p.First))
			place = ttir.Add(place.MulInt(dim), channel)
		}
		ttir.Store(words, place, x)
	}
}
