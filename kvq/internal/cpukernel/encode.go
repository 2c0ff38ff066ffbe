package cpukernel

import (
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/kvq/internal/codes"
	"github.com/kvqbook/kvqbook/kvq/internal/numbers"
)

// encodeTarget is the name of the function that codes: see [target].
const encodeTarget = "kvq_encode_1"

// Encode is [codes.Format.EncodeFed] for n tokens of each row of x [B, K, T, D], from first [B]
// int32 on, or from 0 on where first is nil; past the end of a row its last token repeats. ok is
// false where the function does not run: in graphs of other backends than one that [Lacks] nothing,
// in those that devices share, and for other formats than packed codes of unbiased ranges.
func Encode(f codes.Format, x, first *Node, n int, valid, factor *Node) (blocks codes.Blocks, ok bool) {
	if g := x.Graph(); !encodes(f) || gx.OnGPU(g) || gx.Sharing(g) > 1 || Lacks(g.Backend()) != "" {
		return codes.Blocks{}, false
	}
	d, dtype := x.Shape().Dimensions, x.DType()
	if first == nil {
		first = gx.Zeros(x.Graph(), shapes.Make(dtypes.Int32, d[0]))
	}
	f.Spec.Scales = f.Spec.Scales.Storage(dtype)
	if f.Rotate && dtype != dtypes.Float32 { // rotated numbers are rounded to the cache's dtype
		x, f.Rotate = numbers.Rotate(x), false
	}
	e := encoding{format: f, rows: d[0], heads: d[1], tokens: n, all: d[2], valid: valid != nil, factor: factor != nil}
	inputs := []*Node{Const(x.Graph(), e.numbers()), ConvertDType(x, dtypes.Float32), first}
	if valid != nil {
		inputs = append(inputs, ConvertDType(valid, dtypes.Uint8))
	}
	if factor != nil {
		inputs = append(inputs, Transpose(factor, -1, -2))
	}
	arrays := f.Arrays(d[0], d[1], n, dtype)
	outputs := make([]shapes.Shape, len(arrays))
	for i, a := range arrays {
		outputs[i] = a.Shape
	}
	blocks, _ = f.Take(gx.HostCall(encodeTarget, inputs, outputs...))
	return blocks, true
}

// encodes says whether the function makes codes of a format.
func encodes(f codes.Format) bool {
	return f.Packed && f.Spec.Quantizer == numbers.Unbiased && takes(f) == "" && (f.PerChannel || !f.TokenScales)
}

// encoding is what a call is made for.
type encoding struct {
	format                   codes.Format
	rows, heads, tokens, all int
	valid, factor            bool
}

// numbers is the encoding as the function in C reads it: encode_call of encodehandler.c.
func (e encoding) numbers() []int32 {
	f := e.format
	cuts, first, step := f.Spec.Cuts(f.Group)
	list := []int32{
		int32(e.rows), int32(e.heads), int32(e.tokens), int32(e.all), flag(f.Keys), int32(cuts), bits(first), bits(step),
		flag(e.valid), flag(e.factor),
	}
	return append(list, side(f, dtypes.Float32)...)
}
