package kernel

import (
	"math"

	"github.com/kvqbook/kvqbook/internal/ttir"
	"github.com/kvqbook/kvqbook/internal/words"
	"github.com/kvqbook/kvqbook/kvq/internal/codes"
)

// Codes are never converted. A field is masked where it lies, and the word's bits are taken for a
// float32: code·2^(at-149), see [words.Fields.Float]. Most of these numbers are subnormal, which a
// GPU multiplies as fast as others. What multiplies a code, a query or a weight, is pre-scaled by
// 2^(preScale-at), and the sum is scaled back by 2^(149-preScale). So a code costs two
// instructions: an AND and a multiply-add.

// preScale is the exponent that queries and weights are scaled by.
const preScale = 64

// scaleBack is what sums over pre-scaled products are multiplied by.
func scaleBack(t *ttir.Kernel) ttir.Value {
	return t.Float(float32(math.Ldexp(1, words.FloatBias-preScale)))
}

// field takes field f out of packed words, as float32 numbers. high are the words shifted down.
func field(packed, high ttir.Value, f, width int) ttir.Value {
	fields := words.Fields{Word: 32, Width: width}
	place := fields.Float(f)
	if place.Down > 0 {
		packed = high
	}
	return packed.AndInt(fields.Mask(place)).Bitcast(ttir.F32)
}

// shiftedDown are the words that fields at the top are taken from.
func shiftedDown(packed ttir.Value) ttir.Value { return packed.ShiftRight(words.FloatDown) }

// preScales is what rows of a block are multiplied by, by their numbers: 2^(preScale + low - at),
// where the plane begins at bit low of a code and its field at bit at of a word. It is
// [words.Fields.Float] as instructions.
func preScales(t *ttir.Kernel, p codes.Plane, row ttir.Value) ttir.Value {
	at := row.RemInt(p.Fields).MulInt(p.Width)
	at = ttir.Sub(at, at.DivInt(words.FloatExponent).MulInt(words.FloatDown))
	return ttir.Sub(t.Int(127+preScale+p.Low), at).ShiftLeft(23).Bitcast(ttir.F32)
}
