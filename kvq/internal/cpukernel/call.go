package cpukernel

import (
	"math"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/kvq/internal/codes"
	"github.com/kvqbook/kvqbook/kvq/internal/kernel"
	"github.com/kvqbook/kvqbook/kvq/internal/numbers"
)

// target is the function's name in programs. Programs are kept on disk, and an older one is not to
// meet a function that reads its inputs otherwise: a change of the inputs, or of their order, is
// another number at the end.
const target = "kvq_attend_1"

// Attend is attention of single tokens over all that a layer holds: [B, K, Q, E] float32, E
// elements of a value. It is for graphs of a backend that [Lacks] nothing.
func Attend(of kernel.Shape, in kernel.Inputs) *Node {
	s, g := shape{of}, in.Queries.Graph()
	list := []*Node{Const(g, s.numbers()), in.Queries, in.Position, in.Used, in.CodeIndex}
	list = append(append(list, in.Keys.Nodes()...), in.Values.Nodes()...)
	list = append(list, in.ExactIndex, in.ExactKeys, in.ExactValues)
	if slopes := s.Scores.Slopes; len(slopes) > 0 {
		list = append(list, ConvertDType(Const(g, slopes), dtypes.Float32))
	}
	return gx.HostCall(target, list, shapes.Make(dtypes.Float32, s.Batch, s.Heads, s.Queries, s.Value.HeadDim))[0]
}

// shape is what a call is made for; its Processors do not matter.
type shape struct{ kernel.Shape }

// numbers is the shape as the function in C reads it: kvq_call of handler.c.
func (s shape) numbers() []int32 {
	list := []int32{
		int32(s.Batch), int32(s.Heads), int32(s.Queries), int32(s.Blocks), int32(s.Exact), int32(s.SlidingWindow),
		floatType(s.QueryType), floatType(s.CacheType), bits(s.Scores.Scale), bits(s.Scores.SoftCap), flag(len(s.Scores.Slopes) > 0),
	}
	return append(append(list, side(s.Key, s.CacheType)...), side(s.Value, s.CacheType)...)
}

// side is what functions read of keys or values in a cache of this dtype: kvq_side of side.h.
func side(f codes.Format, cache dtypes.DType) []int32 {
	words, planes := f.Words(), f.Planes()
	list := []int32{int32(f.Bits), int32(len(planes))}
	for i := range 2 {
		width := 0
		if i < len(planes) {
			width = planes[i].Width
		}
		list = append(list, int32(width))
	}
	return append(list,
		int32(words.Bits), int32(words.Parts), int32(words.Rows), int32(f.WordsOfPart()),
		int32(f.Group), flag(f.PerChannel), int32(f.Groups()), scaleType(f.Spec.Scales.Storage(cache)),
		flag(f.Rotate), int32(f.HeadDim), flag(f.HasZeros()), flag(f.TokenScales))
}

// floatType is the number of a dtype in attend.h.
func floatType(d dtypes.DType) int32 {
	switch d {
	case dtypes.Float16:
		return 1
	case dtypes.BFloat16:
		return 2
	}
	return 0
}

// scaleType is the number of a format of scales in attend.h.
func scaleType(f numbers.ScaleFormat) int32 {
	if f == numbers.Scale8 {
		return 3
	}
	return floatType(f.DType(dtypes.InvalidDType))
}

// bits are those of a float32.
func bits(x float64) int32 { return int32(math.Float32bits(float32(x))) }

func flag(x bool) int32 {
	if x {
		return 1
	}
	return 0
}
