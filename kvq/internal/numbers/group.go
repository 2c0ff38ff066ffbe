package numbers

import (
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/gx"
)

// voters returns x as float32 and which of its elements have a vote: valid, where that is not nil,
// and finite.
func voters(x, valid *Node) (x32, usable *Node) {
	narrowFormat(x.DType()) // refuses other dtypes
	x32 = ConvertDType(x, dtypes.Float32)
	usable = IsFinite(x32)
	if valid != nil {
		usable = And(usable, valid)
	}
	return x32, usable
}

// groupRange returns the least and the largest usable element of each group of float32 x, limited
// so that all 2^bits values are finite numbers of dtype; 0 and 0 for a group without a usable
// element.
func groupRange(x *Node, axis, bits int, usable *Node, dtype dtypes.DType) (low, high *Node) {
	g := x.Graph()
	low = gx.ReduceMinAndKeep(Where(usable, x, gx.Inf(g, dtypes.Float32)), axis)
	high = gx.ReduceMaxAndKeep(Where(usable, x, gx.NegInf(g, dtypes.Float32)), axis)
	empty := GreaterThan(low, high)
	low, high = Where(empty, gx.ZerosLike(low), low), Where(empty, gx.ZerosLike(high), high)
	f, _ := narrowFormat(dtype)
	last := roundTo(gx.MulScalar(rangeScale(low, high, bits, dtype), int(1)<<bits-1), dtype)
	// A little below the largest float32: whether the last value just there is finite depends on
	// whether XLA rounds the product before it adds.
	wide := Not(gx.LessOrEqualScalar(Abs(roundTo(Add(last, low), dtype)), 0x1.fffffp127))
	low = Where(wide, gx.ClampScalar(low, -f.limit, f.limit), low)
	high = Where(wide, gx.ClampScalar(high, -f.limit, f.limit), high)
	return low, high
}

// rangeScale is the scale of codes that cover [low, high], rounded as quanto does in dtype.
func rangeScale(low, high *Node, bits int, dtype dtypes.DType) *Node {
	return roundTo(divideByConstant(roundTo(Sub(high, low), dtype), float64(int(1)<<bits-1)), dtype)
}

// groupPeak returns the largest magnitude of the usable elements of each group of float32 x, 0 for
// a group without one. It stays a little below the largest float32, so that a scale rounded up does
// not carry the largest code over it.
func groupPeak(x *Node, axis int, usable *Node) *Node {
	peak := gx.ReduceMaxAndKeep(Where(usable, Abs(x), gx.Scalar(x.Graph(), dtypes.Float32, 0)), axis)
	return gx.MinScalar(peak, largestPeak)
}

// largestPeak is a little below the largest float32.
const largestPeak = 0x1.f8p127

// codesOf rounds positions inside of a range, in steps, to codes. Elements that are not valid or
// NaN, and groups of scale 0, get code 0.
func codesOf(steps, scale *Node, bits int, valid *Node) *Node {
	codes := gx.ClampScalar(Round(steps), 0, float64(int(1)<<bits-1))
	return byteOf(Where(keep(steps, scale, valid), codes, gx.ZerosLike(codes)))
}

// byteOf gives whole numbers from 0 to 255, float32, as bytes: from 2^23 on, the low bits of a
// float32 are its whole number. XLA's CPU compiler makes several operations of a conversion, since
// it minds what is not finite or too large.
func byteOf(x *Node) *Node {
	return ConvertDType(Bitcast(gx.AddScalar(x, 1<<23), dtypes.Uint32), dtypes.Uint8)
}

// keep says which elements have a code of their own: valid, not NaN, in a group whose scale is not
// 0.
func keep(x, scale, valid *Node) *Node {
	kept := And(Not(IsNaN(x)), gx.GreaterThanScalar(scale, 0))
	if valid != nil {
		kept = And(kept, valid)
	}
	return kept
}
