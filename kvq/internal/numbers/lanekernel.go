package numbers

import (
	"math"

	"github.com/kvqbook/kvqbook/internal/ptx"
	"github.com/kvqbook/kvqbook/internal/ttir"
)

// Quantizers inside of a kernel for CUDA in which a lane has a whole group: what a group has one of
// is found once, and no sum crosses lanes. In the kernels of groupkernel.go a group lies in several
// lanes, each of which finds it.

// LaneGroup is a group of each lane.
type LaneGroup struct {
	X []ptx.Value // float32
	// Usable and Voting have a bit an element, the first in the lowest bit of the first word. The
	// others have no vote in the range; what has no bit in Voting gets code 0. Both are nil where
	// all bits are 1.
	Usable, Voting []ptx.Value
	// Weight is that of an element in [Spec.EncodeWidth]; nil: all count alike. It is called for
	// one element after the other.
	Weight func(i int) ptx.Value
}

// LaneCodes is what a lane makes of its group.
type LaneCodes struct {
	Codes              []ptx.Value // int32
	Scales, Zeros      ptx.Value   // as stored, in the low bytes: see [ScaleFormat.KernelElem]
	Scale, Zero, Width ptx.Value   // decoded, float32; Width as of [Spec.EncodeWidth]
}

// InLane reports whether a lane can make the codes, of groups of so many elements, in its
// registers.
func (s Spec) InLane(group int) bool {
	return s.Quantizer == Unbiased && (group == 32 || group == 64)
}

// EncodeInLane is [Spec.EncodeWidth] for the groups of lanes, for numbers of from.
func (s Spec) EncodeInLane(k *ptx.Kernel, g LaneGroup, from ttir.Elem) LaneCodes {
	l := inLane{k: k, LaneGroup: g, bits: s.Bits}
	return l.unbiased(s.Scales.storageOf(from), s.Keys)
}

// inLane is a group under quantization.
type inLane struct {
	k *ptx.Kernel
	LaneGroup
	bits int
}

// bit reports whether an element has its bit in words.
func (l inLane) bit(words []ptx.Value, i int) ptx.Value {
	return l.k.LessUnsigned(l.k.Int(0), l.k.And(words[i/32], l.k.Bits(1<<(i%32))))
}

// used is a where element i is usable, else b.
func (l inLane) used(i int, a, b ptx.Value) ptx.Value {
	if l.Usable == nil {
		return a
	}
	return l.k.Select(l.bit(l.Usable, i), a, b)
}

// fold joins what of gives for each element, in four chains.
func (l inLane) fold(join func(all, x ptx.Value) ptx.Value, of func(i int) ptx.Value) ptx.Value {
	var chains [4]ptx.Value
	for i := range l.X {
		if i < len(chains) {
			chains[i] = of(i)
		} else {
			chains[i%4] = join(chains[i%4], of(i))
		}
	}
	return join(join(chains[0], chains[1]), join(chains[2], chains[3]))
}

// sumProducts adds what of gives for each element: the product of two.
func (l inLane) sumProducts(of func(i int) (a, b ptx.Value)) ptx.Value {
	var chains [4]ptx.Value
	for i := range l.X {
		a, b := of(i)
		if i < len(chains) {
			chains[i] = l.k.FMul(a, b)
		} else {
			chains[i%4] = l.k.FMulAdd(a, b, chains[i%4])
		}
	}
	return l.k.FAdd(l.k.FAdd(chains[0], chains[1]), l.k.FAdd(chains[2], chains[3]))
}

// whole is where float32 begins to have whole numbers alone, in its low bits.
const whole = 3 << 22

// unbiased is [quantizeUnbiased]. Of equal candidates, the first wins. Codes are made from 0 to 1
// of the range, to which an instruction brings its result at no cost.
func (l inLane) unbiased(format ScaleFormat, keys bool) LaneCodes {
	k, n := l.k, len(l.X)
	last := float32(int(1)<<l.bits - 1)
	one, half, inf := k.Float(1), k.Float(0.5), float32(math.Inf(1))
	low := l.fold(k.FMin, func(i int) ptx.Value { return l.used(i, l.X[i], k.Float(inf)) })
	high := l.fold(k.FMax, func(i int) ptx.Value { return l.used(i, l.X[i], k.Float(-inf)) })
	if l.Usable != nil {
		empty := k.FLess(high, low)
		low, high = k.Select(empty, k.Float(0), low), k.Select(empty, k.Float(0), high)
	}
	limit := narrowOf(ttir.F32).limit // the gain widens a range
	low, high = clampedInLane(k, low, limit), clampedInLane(k, high, limit)
	unit := k.FMin(orOneInLane(k, k.FMax(k.FAbs(low), k.FAbs(high))), k.Float(largestDivisor))
	low, high = k.FQuotient(low, unit), k.FQuotient(high, unit)
	perUnit := k.FQuotient(one, unit)
	x := make([]ptx.Value, n)
	for i := range x {
		x[i] = k.FMul(l.X[i], perUnit)
		if l.Usable != nil {
			x[i] = l.used(i, k.FMin(k.FMax(x[i], low), high), k.Float(0))
		}
	}
	votes := k.Float(float32(n))
	if l.Usable != nil {
		count := k.Int(0)
		for _, w := range l.Usable {
			count = k.Add(count, k.CountBits(w))
		}
		votes = k.FMax(k.FromInt(count), one)
	}
	mean := k.FQuotient(l.fold(k.FAdd, func(i int) ptx.Value { return x[i] }), votes)
	centred := make([]ptx.Value, n)
	for i := range x {
		centred[i] = l.used(i, k.FSub(x[i], mean), k.Float(0))
	}
	spread := l.sumProducts(func(i int) (a, b ptx.Value) { return centred[i], centred[i] })
	width := k.FSub(high, low)

	// numbers are codes + whole, for a middle of the range beside the mean.
	numbersOf := func(middle, perRange ptx.Value) []ptx.Value {
		begin, numbers := k.FSub(half, k.FMul(middle, perRange)), make([]ptx.Value, n)
		for i, c := range centred {
			numbers[i] = k.FMulAdd(k.FMulAddWithin1(c, perRange, begin), k.Float(last), k.Float(whole))
		}
		return numbers
	}
	// The middle of codes need not be taken off them: centred adds up to 0.
	gainOf := func(numbers []ptx.Value, fine ptx.Value, div func(a, b ptx.Value) ptx.Value) ptx.Value {
		common := l.sumProducts(func(i int) (a, b ptx.Value) { return centred[i], k.FSub(numbers[i], k.Float(whole)) })
		gain := div(spread, k.FMax(k.FMul(common, fine), k.Float(tiny)))
		return k.FMin(k.FMax(gain, k.Float(leastGain)), k.Float(mostGain))
	}
	cutLow, cutHigh := k.Float(0), k.Float(0)
	if cuts := cutsOf(l.bits, n, keys); cuts.n > 1 {
		cutLow, cutHigh = k.Variable(cutLow), k.Variable(cutHigh)
		l.search(cuts, cutLow, cutHigh, func(cutLow, cutHigh ptx.Value) (cost ptx.Value) {
			left := k.FSub(k.FSub(one, cutLow), cutHigh)
			middle := k.FMul(width, k.FMul(k.FSub(k.FAdd(one, cutLow), cutHigh), half))
			middle = k.FSub(k.FAdd(low, middle), mean)
			numbers := numbersOf(middle, k.FMul(k.FDiv(one, orOneInLane(k, width)), k.FDiv(one, left)))
			fine := k.FMul(width, k.FMul(left, k.Float(1/last)))
			step := k.FMul(fine, gainOf(numbers, fine, k.FDiv))
			zero := k.FSub(middle, k.FMul(step, k.Float(last/2)))
			return l.sumProducts(func(i int) (a, b ptx.Value) {
				wrong := k.FSub(k.FMulAdd(k.FSub(numbers[i], k.Float(whole)), step, zero), centred[i])
				wrong = l.used(i, wrong, k.Float(0))
				if l.Weight != nil {
					wrong = k.FMul(wrong, l.Weight(i))
				}
				if keys {
					return k.FMul(wrong, k.FAbs(wrong)), wrong
				}
				return wrong, wrong
			})
		})
	}
	from, to := k.FAdd(low, k.FMul(width, cutLow)), k.FSub(high, k.FMul(width, cutHigh))
	middle, fine := k.FMul(k.FAdd(from, to), half), k.FQuotient(k.FSub(to, from), k.Float(last))
	numbers := numbersOf(k.FSub(middle, mean), k.FMul(k.FQuotient(one, orOneInLane(k, fine)), k.Float(1/last)))
	step := k.FMul(k.FMul(fine, gainOf(numbers, fine, k.FQuotient)), unit)
	out := format.nearestInLane(k, step, k.FSub(k.FMul(middle, unit), k.FMul(step, k.Float(last/2))), l.bits)
	out.Width = k.FMul(fine, unit)
	// A scale of 0 has no codes but 0. What had no vote: infinities are at their end of the range,
	// NaN is at the lower one.
	most := k.Select(k.FLess(k.Float(0), out.Scale), k.Int(int(last)), k.Int(0))
	for i, number := range numbers {
		code := k.And(number, most)
		if l.Usable != nil {
			above := k.Both(k.FLess(k.Float(0), l.X[i]), l.bit(l.Voting, i))
			code = l.used(i, code, k.Select(above, most, k.Int(0)))
		}
		out.Codes = append(out.Codes, code)
	}
	return out
}

// search sets what is cut off the range to that of the least cost.
func (l inLane) search(cuts cuts, cutLow, cutHigh ptx.Value, costOf func(cutLow, cutHigh ptx.Value) ptx.Value) {
	k := l.k
	part := func(index ptx.Value) ptx.Value {
		return k.FAdd(k.FMul(k.FromInt(index), k.Float(float32(cuts.step))), k.Float(float32(cuts.first)))
	}
	best, i, next := k.Variable(k.Float(math.MaxFloat32)), k.Variable(k.Int(0)), k.NewLabel()
	k.Here(next)
	first, second := part(k.Div(i, k.Int(cuts.n))), part(k.Rem(i, k.Int(cuts.n)))
	cost := costOf(first, second)
	better := k.FLess(cost, best)
	k.Set(best, k.Select(better, cost, best))
	k.Set(cutLow, k.Select(better, first, cutLow))
	k.Set(cutHigh, k.Select(better, second, cutHigh))
	k.Set(i, k.Add(i, k.Int(1)))
	k.Branch(next, k.Less(i, k.Int(cuts.n*cuts.n)))
}

// orOneInLane is [positiveOr1].
func orOneInLane(k *ptx.Kernel, x ptx.Value) ptx.Value {
	return k.Select(k.FLess(k.Float(0), x), x, k.Float(1))
}

// clampedInLane is x from -limit to limit.
func clampedInLane(k *ptx.Kernel, x ptx.Value, limit float64) ptx.Value {
	return k.FMin(k.FMax(x, k.Float(float32(-limit))), k.Float(float32(limit)))
}

// roundSmallInLane rounds float32 below 2^22 in magnitude to whole numbers, halves to even.
func roundSmallInLane(k *ptx.Kernel, x ptx.Value) ptx.Value {
	return k.FSub(k.FAdd(x, k.Float(whole)), k.Float(whole))
}

// nearestInLane is [ScaleFormat.encodeNearest], and the way back.
func (f ScaleFormat) nearestInLane(k *ptx.Kernel, scale, low ptx.Value, bits int) (out LaneCodes) {
	if f == Scale8 {
		unit := float32(ZeroUnit(bits))
		reach := k.FQuotient(k.FAbs(low), k.Float(unit*(ByteZeroOffset-1)))
		out.Scale, out.Scales = byteInLane(k, k.FMax(scale, reach))
		step := k.FMul(out.Scale, k.Float(unit))
		ratio := k.FAdd(roundSmallInLane(k, k.FQuotient(low, orOneInLane(k, step))), k.Float(ByteZeroOffset))
		ratio = k.FMin(k.FMax(ratio, k.Float(0)), k.Float(255))
		out.Zeros = k.And(k.FAdd(ratio, k.Float(whole)), k.Int(255))
		out.Zero = k.FMul(k.FSub(ratio, k.Float(ByteZeroOffset)), step)
		return out
	}
	elem := f.KernelElem(ttir.F32)
	nearest := func(x ptx.Value) (value, stored ptx.Value) {
		if elem == ttir.F32 {
			return x, x
		}
		x = narrowOf(elem).nearestInLane(k, x)
		return x, k.Halves(map[ttir.Elem]ptx.Elem{ttir.F16: ptx.F16, ttir.BF16: ptx.BF16}[elem], x, k.Float(0))
	}
	out.Scale, out.Scales = nearest(scale)
	out.Zero, out.Zeros = nearest(low)
	return out
}

// nearestInLane is [narrow.roundNearest].
func (f narrow) nearestInLane(k *ptx.Kernel, x ptx.Value) ptx.Value {
	drop := 23 - f.mantissa
	x = clampedInLane(k, x, f.largest)
	normal := k.And(k.Add(x, k.Int(1<<(drop-1))), k.Int(-1<<drop))
	if f.minExponent > -126 {
		unit := math.Ldexp(1, f.minExponent-f.mantissa)
		small := k.FMul(roundSmallInLane(k, k.FMul(x, k.Float(float32(1/unit)))), k.Float(float32(unit)))
		below := k.FLess(k.FAbs(x), k.Float(float32(math.Ldexp(1, f.minExponent))))
		normal = k.Select(below, small, normal)
	}
	return clampedInLane(k, normal, f.largest)
}

// byteInLane is the nearest scale of a byte, and the byte: [byteOfScale].
func byteInLane(k *ptx.Kernel, scale ptx.Value) (nearest, stored ptx.Value) {
	nearest = byteScale.nearestInLane(k, scale)
	normal := k.Sub(k.ShiftRight(nearest, k.Int(23-byteScale.mantissa)), k.Int(ByteScaleOffset))
	small := k.And(k.FAdd(k.FMin(k.FMul(nearest, k.Float(1/ByteScaleUnit)), k.Float(255)), k.Float(whole)), k.Int(255))
	return nearest, k.Select(k.FLess(nearest, k.Float(16*ByteScaleUnit)), small, normal)
}

// StoredBytes is the size of what a kernel stores.
func StoredBytes(e ttir.Elem) int {
	return map[ttir.Elem]int{ttir.F32: 4, ttir.F16: 2, ttir.BF16: 2, ttir.I8: 1}[e]
}

// PerMostInLane is what the largest magnitude of a group is multiplied by in [TokenScales], so that
// squares stay in float32.
func PerMostInLane(k *ptx.Kernel, most ptx.Value) ptx.Value {
	return k.FDiv(k.Float(1), k.FMin(orOneInLane(k, most), k.Float(largestDivisor)))
}

// TokenScaleInLane is the scale of a token whose size is beside that of the largest, float32, and
// its byte.
func TokenScaleInLane(k *ptx.Kernel, size, most ptx.Value) (scale, stored ptx.Value) {
	return byteInLane(k, k.FMul(size, k.FDiv(k.Float(1), orOneInLane(k, most))))
}
