package numbers

import (
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/gx"
)

// Quantizers is the table of all quantizers. A new one is a file of its own and an entry here.
var Quantizers = []*Quantizer{MinMax, LeastSquares, Unbiased, Symmetric, Float8, Int8, HQQ}

// Quantizer is a way to turn a group of numbers into codes. Compare quantizers by pointer.
type Quantizer struct {
	// Name is what a configuration calls it.
	Name string

	// Zeros tells whether a group has a zero point beside its scale: value = scale·code + zero.
	// Without one, the middle code of packed bits stands for 0, and other codes are numbers
	// themselves.
	Zeros bool

	// Element is the dtype of codes that are numbers of their own, with one scale per token and
	// head: bits and group size do not apply. InvalidDType: codes of a few bits, which are packed.
	Element dtypes.DType

	// Check refuses settings that the quantizer does not have; nil: it takes all.
	Check func(s Spec) error

	// candidates is how many ranges are tried at once, for groups of so many elements; nil: one.
	candidates func(g *Graph, s Spec, group int) int

	// encode is [Spec.Encode].
	encode func(s Spec, x *Node, axis int, valid *Node) (codes, scales, zeros *Node)

	// width is [Spec.EncodeWidth]; nil: the width of a code is the scale.
	width func(s Spec, x *Node, axis int, valid, weights *Node) (codes, scales, zeros, width *Node)

	// number gives codes that are not packed as float32, without the scale; nil: they are
	// converted.
	number func(codes *Node) *Node
}

// ByName returns the quantizer of that name, nil where there is none.
func ByName(name string) *Quantizer {
	for _, q := range Quantizers {
		if q.Name == name {
			return q
		}
	}
	return nil
}

// Names lists the names of all quantizers, in the order of the table.
func Names() []string {
	var names []string
	for _, q := range Quantizers {
		names = append(names, q.Name)
	}
	return names
}

// Packed tells whether codes are of a few bits, which are packed.
func (q *Quantizer) Packed() bool { return q.Element == dtypes.InvalidDType }

// Spec says how the range of a group is found, and how it is stored. It is comparable.
type Spec struct {
	Quantizer *Quantizer
	Bits      int         // of a code
	Scales    ScaleFormat // of scales and zero points; empty: the dtype of the numbers
	Keys      bool        // a quantizer may count errors of keys and of values differently

	// WholeRow has a search that stops by a mean error take it over all groups of a row, as hqq
	// does, instead of group by group.
	WholeRow bool
}

// Encode makes codes, scales and zero points of values that are split into groups along axis.
//
//	x       [B, ...], float32, float16 or bfloat16
//	valid   nil, or booleans of x's shape: the others have no vote in their group's range
//	codes   uint8, or the quantizer's element; shape of x
//	scales, zeros  as stored, axis of size 1; zeros nil where the quantizer has none
func (s Spec) Encode(x *Node, axis int, valid *Node) (codes, scales, zeros *Node) {
	return s.Quantizer.encode(s, x, axis, valid)
}

// EncodeWidth is Encode that also says how wide the interval is that a code stands for, float32 as
// a decoded scale. It is the scale itself, nil here, but for a quantizer that widens its scale
// after it has rounded. weights, float32 like x where its axes are not 1, is what a quantizer that
// compares ranges multiplies errors by; nil: all count alike.
func (s Spec) EncodeWidth(x *Node, axis int, valid, weights *Node) (codes, scales, zeros, width *Node) {
	if s.Quantizer.width != nil {
		return s.Quantizer.width(s, x, axis, valid, weights)
	}
	codes, scales, zeros = s.Encode(x, axis, valid)
	return codes, scales, zeros, nil
}

// Numbers gives codes that are not packed as float32, without the scale.
func (s Spec) Numbers(codes *Node) *Node {
	if s.Quantizer.number != nil {
		return s.Quantizer.number(codes)
	}
	return ConvertDType(codes, dtypes.Float32)
}

// ScaleAndZero decodes stored scales and zero points to float32: value = scale·code + zero. zero is
// nil where codes are numbers around 0 themselves.
func (s Spec) ScaleAndZero(scales, zeros *Node) (scale, zero *Node) {
	scale = s.Scales.DecodeScale(scales)
	switch {
	case zeros != nil:
		zero = s.Scales.DecodeZero(zeros, scale, s.Bits)
	case s.Quantizer.Packed():
		zero = gx.MulScalar(scale, -s.Middle())
	}
	return scale, zero
}

// Middle is the code that stands for 0 where packed codes have no zero point.
func (s Spec) Middle() int { return 1 << (s.Bits - 1) }

// Candidates is how many ranges the quantizer tries at once, in a graph and for groups of so many
// elements: of so many arrays like x it makes more.
func (s Spec) Candidates(g *Graph, group int) int {
	if s.Quantizer.candidates == nil {
		return 1
	}
	return s.Quantizer.candidates(g, s, group)
}
