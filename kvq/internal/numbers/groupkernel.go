package numbers

import (
	"math"

	"github.com/gomlx/compute/dtypes"
	"github.com/kvqbook/kvqbook/internal/ttir"
)

// Quantizers inside of a kernel for CUDA: a program has whole groups in its registers, and makes
// their codes and ranges without writing anything in between. Graph operations write what they make
// of x to memory for each reduction over a group, several arrays of float32.

// KernelCodes is what a kernel makes of a block of groups. All but Codes are of one number a group.
type KernelCodes struct {
	Codes              ttir.Value // int32, the block's shape
	Scales, Zeros      ttir.Value // as stored, of [ScaleFormat.KernelElem]
	Scale, Zero, Width ttir.Value // decoded, float32; Width as of [Spec.EncodeWidth]
}

// InKernel reports whether a kernel can make the codes, of groups of so many elements: blocks of a
// kernel are powers of two.
func (s Spec) InKernel(group int) bool {
	quanto := s.Quantizer == MinMax && s.Scales == ""
	return (quanto || s.Quantizer == Unbiased) && group&(group-1) == 0
}

// EncodeInKernel is [Spec.EncodeWidth] in a kernel. x is a block of float32 that holds numbers of
// from, with groups along axis; valid are booleans that broadcast to it, and so do weights,
// float32, where they are not nil.
func (s Spec) EncodeInKernel(x, valid ttir.Value, weights *ttir.Value, axis int, from ttir.Elem) KernelCodes {
	k := groupKernel{x: x, valid: valid, usable: ttir.BitAnd(valid, isFinite(x)), weights: weights, axis: axis, bits: s.Bits}
	if s.Quantizer == MinMax {
		return k.quanto(from)
	}
	return k.unbiased(s.Scales.storageOf(from), s.Keys)
}

// KernelElem is the element that scales and zero points are stored in, for numbers of from.
func (f ScaleFormat) KernelElem(from ttir.Elem) ttir.Elem {
	switch f.storageOf(from) {
	case ScaleFloat16:
		return ttir.F16
	case ScaleBFloat16:
		return ttir.BF16
	case Scale8:
		return ttir.I8
	}
	return ttir.F32
}

// storageOf is [ScaleFormat.Storage] for an element of a kernel.
func (f ScaleFormat) storageOf(from ttir.Elem) ScaleFormat {
	switch {
	case f != "":
		return f
	case from == ttir.F16:
		return ScaleFloat16
	case from == ttir.BF16:
		return ScaleBFloat16
	}
	return ScaleFloat32
}

// groupKernel is a block of groups.
type groupKernel struct {
	x, valid, usable ttir.Value
	weights          *ttir.Value
	axis, bits       int
}

func (k groupKernel) t() *ttir.Kernel                    { return k.x.Kernel() }
func (k groupKernel) each(ofGroup ttir.Value) ttir.Value { return ofGroup.Expand(k.axis) }
func (k groupKernel) last() float32                      { return float32(int(1)<<k.bits - 1) }

// narrowOf is [narrowFormat] of an element.
func narrowOf(e ttir.Elem) narrow {
	f, _ := narrowFormat(map[ttir.Elem]dtypes.DType{ttir.F16: dtypes.Float16, ttir.BF16: dtypes.BFloat16, ttir.F32: dtypes.Float32}[e])
	return f
}

// rounded is [roundTo].
func rounded(x ttir.Value, e ttir.Elem) ttir.Value { return x.Narrow(e).ToFloat() }

// orOne is [positiveOr1].
func orOne(x ttir.Value) ttir.Value {
	return ttir.Select(ttir.LessFloat(x.Kernel().Float(0), x), x, x.Kernel().Float(1))
}

func absolute(x ttir.Value) ttir.Value { return magnitude(x).Bitcast(ttir.F32) }

// clamped is x from -limit to limit.
func clamped(x ttir.Value, limit float64) ttir.Value {
	return x.AtLeast(float32(-limit)).AtMost(float32(limit))
}

// rangeOf is [groupRange].
func (k groupKernel) rangeOf(e ttir.Elem) (low, high ttir.Value) {
	inf, none := float32(math.Inf(1)), k.t().Float(0)
	low = ttir.Select(k.usable, k.x, k.t().Float(inf)).Min(k.axis)
	high = ttir.Select(k.usable, k.x, k.t().Float(-inf)).Max(k.axis)
	empty := ttir.LessFloat(high, low)
	low, high = ttir.Select(empty, none, low), ttir.Select(empty, none, high)
	limit := narrowOf(e).limit
	last := rounded(k.scaleOf(low, high, e).MulFloat(k.last()), e)
	wide := ttir.LessFloat(k.t().Float(0x1.fffffp127), absolute(rounded(ttir.Add(last, low), e)))
	return ttir.Select(wide, clamped(low, limit), low), ttir.Select(wide, clamped(high, limit), high)
}

// scaleOf is [rangeScale].
func (k groupKernel) scaleOf(low, high ttir.Value, e ttir.Elem) ttir.Value {
	return rounded(ttir.Quotient(rounded(ttir.Sub(high, low), e), k.t().Float(k.last())), e)
}

// inSteps is the graph's function of that name, for a scale a group.
func (k groupKernel) inSteps(x, scale ttir.Value) ttir.Value {
	if k.bits == 2 {
		size := ttir.Select(ttir.LessFloat(k.t().Float(largestDivisor), scale), k.t().Float(0.25), k.t().Float(1))
		x, scale = ttir.Mul(x, k.each(size)), ttir.Mul(scale, size)
	}
	return ttir.Mul(x, k.each(ttir.Quotient(k.t().Float(1), orOne(scale))))
}

// codesOf is the graph's function of that name; the codes are int32.
func (k groupKernel) codesOf(steps, scale ttir.Value) ttir.Value {
	number := steps.AtLeast(0).AtMost(k.last()).RoundSmall()
	kept := ttir.BitAnd(ttir.LessOrEqual(magnitude(steps), k.t().Int(infinity)), k.each(ttir.LessFloat(k.t().Float(0), scale)))
	return wholeNumber(ttir.Select(ttir.BitAnd(kept, k.valid), number, k.t().Float(0)))
}

// wholeNumber gives whole numbers from 0 to 255, float32, as int32: from 2^23 on, the low bits of a
// float32 are its whole number.
func wholeNumber(x ttir.Value) ttir.Value {
	return x.AddFloat(1 << 23).Bitcast(ttir.I32).AndInt(0xff)
}

// quanto is [quantizeMinMax].
func (k groupKernel) quanto(e ttir.Elem) KernelCodes {
	low, high := k.rangeOf(e)
	scale := k.scaleOf(low, high, e)
	steps := rounded(k.inSteps(rounded(ttir.Sub(k.x, k.each(low)), e), scale), e)
	return KernelCodes{Codes: k.codesOf(steps, scale), Scales: scale.Narrow(e), Zeros: low.Narrow(e), Scale: scale, Zero: low, Width: scale}
}

// unbiased is [quantizeUnbiased]. Of equal candidates, the first wins.
func (k groupKernel) unbiased(format ScaleFormat, keys bool) KernelCodes {
	t, axis, half := k.t(), k.axis, k.last()/2
	size := k.x.Shape[axis]
	limit := narrowOf(ttir.F32).limit // the gain widens a range
	low, high := k.rangeOf(ttir.F32)
	low, high = clamped(low, limit), clamped(high, limit)
	unit := orOne(ttir.Max(absolute(low), absolute(high))).AtMost(largestDivisor)
	low, high = ttir.Quotient(low, unit), ttir.Quotient(high, unit)
	x := ttir.Mul(k.x, k.each(ttir.Quotient(t.Float(1), unit)))
	x = ttir.Select(k.usable, x, t.Float(0))
	x = least(ttir.Max(x, k.each(low)), k.each(high))
	x = ttir.Select(k.usable, x, t.Float(0))
	vote := ttir.Select(k.usable, t.Float(1), t.Float(0))
	mean := ttir.Quotient(x.Sum(axis), vote.Sum(axis).AtLeast(1))
	centred := ttir.Mul(ttir.Sub(x, k.each(mean)), vote)
	spread := ttir.Mul(centred, centred).Sum(axis)
	width := ttir.Sub(high, low)

	// What is tried is found with divisions that are off in their last bits: a number a group, they
	// are done by every thread that has an element of it.
	cuts := cutsOf(k.bits, size, keys)
	one := t.Float(1)
	inSteps := ttir.Div(t.Float(2*half), orOne(width)) // of the whole range
	stepsIn := func(middle, perStep ttir.Value) ttir.Value {
		number := ttir.Mul(ttir.Sub(x, k.each(middle)), k.each(perStep)).AddFloat(half)
		return number.AtLeast(0).AtMost(2 * half).RoundSmall().AddFloat(-half)
	}
	gainOf := func(steps, fine ttir.Value, div func(a, b ttir.Value) ttir.Value) ttir.Value {
		common := ttir.Mul(ttir.Mul(centred, steps).Sum(axis), fine)
		return div(spread, common.AtLeast(tiny)).AtLeast(leastGain).AtMost(mostGain)
	}
	cutLow, cutHigh := ttir.Mul(width, t.Float(0)), ttir.Mul(width, t.Float(0))
	if cuts.n > 1 {
		part := func(index ttir.Value) ttir.Value {
			return index.ToFloat().MulFloat(float32(cuts.step)).AddFloat(float32(cuts.first))
		}
		first := []ttir.Value{ttir.Add(cutLow, t.Float(math.MaxFloat32)), cutLow, cutHigh}
		best := t.For(t.Int(0), t.Int(cuts.n*cuts.n), 1, 1, first, func(i ttir.Value, best []ttir.Value) []ttir.Value {
			cutLow, cutHigh := part(i.DivInt(cuts.n)), part(i.RemInt(cuts.n))
			left := ttir.Sub(ttir.Sub(one, cutLow), cutHigh)
			middle := ttir.Add(low, ttir.Mul(width, ttir.Sub(ttir.Add(one, cutLow), cutHigh).MulFloat(0.5)))
			steps := stepsIn(middle, ttir.Mul(inSteps, ttir.Div(one, left)))
			fine := ttir.Mul(width, left.MulFloat(1/(2*half)))
			step := ttir.Mul(fine, gainOf(steps, fine, ttir.Div))
			wrong := ttir.Sub(ttir.Add(ttir.Mul(steps, k.each(step)), k.each(middle)), x)
			if k.weights != nil {
				wrong = ttir.Mul(wrong, *k.weights)
			}
			each := ttir.Mul(wrong, wrong)
			if keys {
				each = ttir.Mul(each, absolute(wrong))
			}
			cost := ttir.Mul(each, vote).Sum(axis)
			better := ttir.LessFloat(cost, best[0])
			return []ttir.Value{ttir.Select(better, cost, best[0]), ttir.Select(better, cutLow, best[1]), ttir.Select(better, cutHigh, best[2])}
		})
		cutLow, cutHigh = best[1], best[2]
	}
	from, to := ttir.Add(low, ttir.Mul(width, cutLow)), ttir.Sub(high, ttir.Mul(width, cutHigh))
	middle, fine := ttir.Add(from, to).MulFloat(0.5), ttir.Quotient(ttir.Sub(to, from), t.Float(2*half))
	steps := stepsIn(middle, ttir.Quotient(one, orOne(fine)))
	step := ttir.Mul(ttir.Mul(fine, gainOf(steps, fine, ttir.Quotient)), unit)
	// What had no vote: infinities are at their end of the range, NaN is at the lower one.
	end := ttir.Select(ttir.LessFloat(t.Float(0), k.x), t.Float(half), t.Float(-half))
	made := ttir.Select(k.usable, steps, end).AddFloat(half)
	out := format.nearestInKernel(step, ttir.Sub(ttir.Mul(middle, unit), step.MulFloat(half)), k.bits)
	out.Codes, out.Width = k.codesOf(made, out.Scale), ttir.Mul(fine, unit)
	return out
}

// least is the smaller float32.
func least(a, b ttir.Value) ttir.Value { return ttir.Select(ttir.LessFloat(b, a), b, a) }

// nearestInKernel is [ScaleFormat.encodeNearest], and the way back.
func (f ScaleFormat) nearestInKernel(scale, low ttir.Value, bits int) (out KernelCodes) {
	if f == Scale8 {
		unit := float32(ZeroUnit(bits))
		reach := ttir.Quotient(absolute(low), low.Kernel().Float(unit*(ByteZeroOffset-1)))
		out.Scale = byteScale.nearestInKernel(ttir.Max(scale, reach))
		out.Scales = byteInKernel(out.Scale)
		step := out.Scale.MulFloat(unit)
		ratio := ttir.Quotient(low, orOne(step)).RoundSmall().AddFloat(ByteZeroOffset).AtLeast(0).AtMost(255)
		out.Zeros, out.Zero = wholeNumber(ratio).Byte(), ttir.Mul(ratio.AddFloat(-ByteZeroOffset), step)
		return out
	}
	elem := f.KernelElem(ttir.F32)
	nearest := func(x ttir.Value) ttir.Value {
		if elem == ttir.F32 {
			return x
		}
		return narrowOf(elem).nearestInKernel(x)
	}
	out.Scale, out.Zero = nearest(scale), nearest(low)
	out.Scales, out.Zeros = out.Scale.Narrow(elem), out.Zero.Narrow(elem)
	return out
}

// nearestInKernel is [narrow.roundNearest].
func (f narrow) nearestInKernel(x ttir.Value) ttir.Value {
	drop := 23 - f.mantissa
	x = clamped(x, f.largest)
	normal := x.Bitcast(ttir.I32).AddInt(1 << (drop - 1)).AndInt(-1 << drop).Bitcast(ttir.F32)
	if f.minExponent > -126 {
		unit := math.Ldexp(1, f.minExponent-f.mantissa)
		small := x.MulFloat(float32(1 / unit)).RoundSmall().MulFloat(float32(unit))
		below := ttir.LessFloat(absolute(x), x.Kernel().Float(float32(math.Ldexp(1, f.minExponent))))
		normal = ttir.Select(below, small, normal)
	}
	return clamped(normal, f.largest)
}

// byteInKernel is [byteOfScale].
func byteInKernel(scale ttir.Value) ttir.Value {
	normal := scale.Bitcast(ttir.I32).ShiftRight(23 - byteScale.mantissa).AddInt(-ByteScaleOffset)
	small := wholeNumber(scale.MulFloat(1 / ByteScaleUnit).AtMost(255))
	return ttir.Select(ttir.LessFloat(scale, scale.Kernel().Float(16*ByteScaleUnit)), small, normal).Byte()
}

// TokenScalesInKernel is [TokenScales] of a block [G, D] of float32. valid broadcasts to it.
//
//	scales  bytes [G]
//	units   float32 [G, D]
//	voting  booleans [G, 1]
//	weights float32 [G, 1], see [TokenWeights]
func TokenScalesInKernel(x, valid ttir.Value) (scales, units, voting, weights ttir.Value) {
	t := x.Kernel()
	tokens, channels := x.Shape[0], x.Shape[1]
	usable := ttir.BitAnd(valid, isFinite(x))
	size := ttir.Select(usable, absolute(x), t.Float(0))
	most := orOne(size.Max(1).Max(0)).AtMost(largestDivisor)
	size = ttir.Mul(size, ttir.Div(t.Float(1), most))
	squares := ttir.Mul(size, size)
	perOne := func(x ttir.Value) ttir.Value { return ttir.Div(t.Float(1), orOne(x)) }
	token := squares.Sum(1).MulFloat(1 / float32(channels))
	for range TokenScaleRounds - 1 {
		channel := ttir.Mul(squares, perOne(token).Expand(1)).Sum(0).MulFloat(1 / float32(tokens))
		token = ttir.Mul(squares, perOne(channel).Expand(0)).Sum(1).MulFloat(1 / float32(channels))
	}
	token = token.Sqrt()
	token = ttir.Mul(token, perOne(token.Max(0)))
	scale := byteScale.nearestInKernel(token)
	factor := ttir.Quotient(t.Float(1), orOne(scale)).Expand(1)
	units = ttir.Select(isFinite(x), clamped(ttir.Mul(x, factor), math.MaxFloat32), x)
	return byteInKernel(scale), units, ttir.BitAnd(valid, ttir.LessFloat(t.Float(0), scale).Expand(1)), ttir.Mul(factor, factor)
}
