// Package words takes codes of a few bits out of the words they are packed in, by masks and without
// shifts.
//
// A masked field stays where it lies in its word, so a code there counts code·2^at, where at is the
// bit that the field begins at. What multiplies the code makes up for that with a factor of 2^-at.
// A sum over codes multiplies them anyhow, so a code costs a mask and no shift. Only the fields at
// the top of a word are shifted down first, since they would reach into the sign or the exponent of
// the number.
//
// Package llama sums packed weights this way, package codes the codes of a cache, and package
// kernel writes the same for a GPU.
package words

import (
	"math"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/kvqbook/kvqbook/internal/gx"
)

// Fields are the codes of a word, the first in the lowest bits. With 32 and 4 bits:
//
//	| field 7 | … | field 1 | field 0 |
type Fields struct {
	Word  int // bits of a word: 32, 16 or 8
	Width int // bits of a field; divides Word
}

// Count is the number of fields.
func (f Fields) Count() int { return f.Word / f.Width }

// Place is where a field lies when its word is masked.
type Place struct {
	At   int // bit that the field begins at, after the shift
	Down int // bits that the word is shifted down by; 0: it is not
}

// Factor makes up for the place of a field, whose lowest bit counts 2^low: 2^(low-at).
func (p Place) Factor(low int) float32 { return float32(math.Ldexp(1, low-p.At)) }

// Mask is the bits of the field.
func (f Fields) Mask(p Place) int { return (1<<f.Width - 1) << p.At }

// Integer is the place of field k where the masked word is taken for a signed integer. The last
// field is shifted down by its width, away from the sign.
func (f Fields) Integer(k int) Place {
	at := k * f.Width
	if k > 0 && k == f.Count()-1 {
		return Place{at - f.Width, f.Width}
	}
	return Place{At: at}
}

// Where a masked word of 32 bits is taken for the bits of a float32, its numbers are
// code·2^(at-FloatBias) below bit FloatExponent: most of them are subnormal.
const (
	FloatBias     = 149
	FloatExponent = 24 // fields from this bit on are shifted down: here a float's exponent begins
	FloatDown     = 8  // bits that they are shifted down by
)

// Float is the place of field k where the masked word is taken for the bits of a float32.
func (f Fields) Float(k int) Place {
	at := k * f.Width
	if at >= FloatExponent {
		return Place{at - FloatDown, FloatDown}
	}
	return Place{At: at}
}

// Number takes field k out of words (an unsigned dtype) as float32 numbers of the same shape: the
// code times 2^at, where at is that of [Fields.Integer].
func (f Fields) Number(k int, words *graph.Node) *graph.Node {
	x, place := words, f.Integer(k)
	if place.Down > 0 {
		x = gx.ShiftRight(x, place.Down)
	}
	if f.Width < f.Word {
		x = gx.AndScalar(x, f.Mask(place))
	}
	if f.Word == 32 {
		x = graph.Bitcast(x, dtypes.Int32)
	}
	return graph.ConvertDType(x, dtypes.Float32)
}

// Numbers is [Fields.Number] of every field.
func (f Fields) Numbers(words *graph.Node) []*graph.Node {
	out := make([]*graph.Node, f.Count())
	for k := range out {
		out[k] = f.Number(k, words)
	}
	return out
}
