package numbers

import (
	"math"
	"slices"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/ttir"
)

// Feedback as a kernel for CUDA: one call instead of a loop over channels whose every turn is
// several pieces of work for a GPU. A thread has a token of a head and goes through its channels as
// [Feedback] does: blocks of them, the last one first. What it rounded wrong lies in memory that no
// other thread touches.

// feedbackLaunch is how it is started, in tokens: a thread each.
var feedbackLaunch = launch{32, 1}

// fedBack is what the kernel is written for.
type fedBack struct {
	heads, tokens, channels int    // B·K, T, D
	groups                  [2]int // tokens and channels that share a scale
	bits                    int
	width                   bool // a code's interval has a width of its own
	launch                  launch
}

func fedBackOf(x, scale, width *Node, bits int) fedBack {
	d, s := x.Shape().Dimensions, scale.Shape().Dimensions
	return fedBack{heads: d[0] * d[1], tokens: d[2], channels: d[3], groups: [2]int{d[2] / s[2], d[3] / s[3]}, bits: bits, width: width != nil,
		launch: feedbackLaunch}
}

// taken reports whether the kernel can run in a graph. It counts in int32.
func (k fedBack) taken(g *Graph) bool {
	return gx.RunsTriton(g) && k.heads*k.channels*max(k.tokens, k.channels) <= math.MaxInt32
}

// programs is the kernel's grid.
func (k fedBack) programs() int { return k.heads * k.programsOfHead() }

func (k fedBack) programsOfHead() int { return k.launch.programs(k.tokens) }

// call is [Feedback] by the kernel.
func (k fedBack) call(x, scale, zero, width, factor *Node) (codes *Node) {
	d := x.Shape().Dimensions
	turned := []int{d[0], d[1], d[3], d[2]}
	inputs := []*Node{Transpose(x, -1, -2), factor, scale, zero}
	if k.width {
		inputs = append(inputs, width)
	}
	out := gx.Triton(k.kernel(), k.launch.warps, 1, [2]int{k.programs(), 1}, inputs, shapes.Make(dtypes.Float32, turned...), shapes.Make(dtypes.Uint8, turned...))
	return Transpose(out[1], -1, -2)
}

// kernel writes it.
//
//	x [B·K, D, T], factor [B·K, D, D], scale, zero and perhaps width [B·K, T/…, D/…] float32
//	-> errors [B·K, D, T] float32, codes [B·K, D, T] uint8
func (k fedBack) kernel() *ttir.Kernel {
	t := ttir.New("feedback")
	x, factor, scale, zero := t.Pointer(ttir.F32), t.Pointer(ttir.F32), t.Pointer(ttir.F32), t.Pointer(ttir.F32)
	width := scale
	if k.width {
		width = t.Pointer(ttir.F32)
	}
	errors, codes := t.Pointer(ttir.F32), t.Pointer(ttir.I8)
	program, n := t.ProgramID(0), channelsAtOnce(k.channels)
	head := program.DivInt(k.programsOfHead())
	part := program
	if k.heads > 1 {
		part = program.RemInt(k.programsOfHead())
	}
	weights := head.MulInt(k.channels * k.channels)
	token := ttir.Min(ttir.Add(part.MulInt(k.launch.atOnce), t.Range(k.launch.atOnce, 0, 1)), t.Int(k.tokens-1))
	// Where the ranges and the first channel of a token lie.
	perHead := k.tokens / k.groups[0] * (k.channels / k.groups[1])
	ranges := ttir.Add(token.DivInt(k.groups[0]).MulInt(k.channels/k.groups[1]), head.MulInt(perHead))
	token = ttir.Add(token, head.MulInt(k.channels*k.tokens))
	t.For(t.Int(0), t.Int(k.channels/n), 1, 1, []ttir.Value{t.Int(k.channels - n)}, func(_ ttir.Value, carried []ttir.Value) []ttir.Value {
		first := carried[0]
		// All that the block reads is asked for here, so that it comes while sums are made.
		block := make([]fedChannel, n)
		for i := range block {
			channel := first.AddInt(i)
			of := func(pointer ttir.Value) ttir.Value {
				return ttir.Load(pointer, ttir.Add(ranges, channel.DivInt(k.groups[1])))
			}
			place := ttir.Add(token, channel.MulInt(k.tokens))
			block[i] = fedChannel{place, ttir.Load(x, place), of(scale), of(zero), of(width)}
		}
		// What the errors of the channels behind the block add to each of its channels.
		none := make([]ttir.Value, n)
		for i := range none {
			none[i] = t.Fill(t.Float(0), k.launch.atOnce)
		}
		weight := func(channel ttir.Value, fed int) ttir.Value {
			return ttir.Load(factor, ttir.Add(weights, ttir.Add(channel.MulInt(k.channels), first.AddInt(fed))))
		}
		at := rowsAtOnce(n)
		fed := t.For(first.AddInt(n), t.Int(k.channels), at, 1, none, func(behind ttir.Value, fed []ttir.Value) []ttir.Value {
			fed = slices.Clone(fed)
			for row := range at {
				channel := behind.AddInt(row)
				wrong := ttir.Load(errors, ttir.Add(token, channel.MulInt(k.tokens)))
				for i := range fed {
					fed[i] = ttir.MulAdd(wrong, weight(channel, i), fed[i])
				}
			}
			return fed
		})
		// Nothing is written before all of the block is known: what is read after that would wait.
		codesOf, wrong := make([]ttir.Value, n), make([]ttir.Value, n)
		fed = slices.Clone(fed)
		for channel := n - 1; channel >= 0; channel-- {
			codesOf[channel], wrong[channel] = k.round(block[channel], fed[channel])
			for i := range channel {
				fed[i] = ttir.MulAdd(wrong[channel], weight(first.AddInt(channel), i), fed[i])
			}
		}
		for i, c := range block {
			ttir.Store(errors, c.place, wrong[i])
			ttir.Store(codes, c.place, codesOf[i])
		}
		return []ttir.Value{first.AddInt(-n)}
	})
	return t
}

// rowsAtOnce is how many of the channels behind a block, a multiple of n, are added in one turn.
func rowsAtOnce(n int) int {
	for _, rows := range []int{4, 2} {
		if n%rows == 0 {
			return rows
		}
	}
	return 1
}

// fedChannel is a channel of the program's tokens: where it lies, its numbers and their ranges.
type fedChannel struct{ place, x, scale, zero, width ttir.Value }

// round makes the codes of a channel, bytes, and what they have wrong.
func (k fedBack) round(c fedChannel, fed ttir.Value) (code, wrong ttir.Value) {
	x, scale, zero := c.x, c.scale, c.zero
	last := float32(int(1)<<k.bits - 1)
	target := ttir.Add(x, fed)
	target = ttir.Select(isFinite(target), target, x)
	var steps ttir.Value
	if k.width {
		middle := ttir.Add(zero, scale.MulFloat(last/2))
		steps = k.inSteps(ttir.Sub(target, middle), c.width).AddFloat(last / 2)
	} else {
		steps = k.inSteps(ttir.Sub(target, zero), scale)
	}
	t := zero.Kernel()
	number := steps.AtLeast(0).AtMost(last).RoundSmall()
	kept := ttir.BitAnd(ttir.LessOrEqual(magnitude(x), t.Int(infinity)), ttir.LessFloat(t.Float(0), scale))
	number = ttir.Select(kept, number, t.Float(0))
	wrong = ttir.Sub(x, ttir.Add(ttir.Mul(number, scale), zero))
	wrong = ttir.Select(isFinite(wrong), wrong, t.Float(0))
	// From 2^23 on, the low bits of a float32 are its whole number.
	return number.AddFloat(1 << 23).Bitcast(ttir.I32).Byte(), wrong
}

// inSteps is the graph's function of that name.
func (k fedBack) inSteps(x, scale ttir.Value) ttir.Value {
	t := x.Kernel()
	if k.bits == 2 {
		size := ttir.Select(ttir.LessFloat(t.Float(largestDivisor), scale), t.Float(0.25), t.Float(1))
		x, scale = ttir.Mul(x, size), ttir.Mul(scale, size)
	}
	return ttir.Div(x, ttir.Select(ttir.LessFloat(t.Float(0), scale), scale, t.Float(1)))
}

// infinity is the float32's bits; those of NaN are above it.
const infinity = 0x7f800000

// magnitude is the bits of |x|, as int32.
func magnitude(x ttir.Value) ttir.Value { return x.Bitcast(ttir.I32).AndInt(math.MaxInt32) }

func isFinite(x ttir.Value) ttir.Value { return ttir.Less(magnitude(x), x.Kernel().Int(infinity)) }
