package numbers

import (
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/gx"
)

// Feedback makes codes for scales and zero points that are settled, channel by channel: what
// rounding did wrong in a channel is made up for in those still to come, as far as a metric M of
// [Factor] says that they can. Where M is what an error e of a token costs, eᵀ·M·e, and M = L·P·Lᵀ
// with a unit lower triangular L and a diagonal P, it is a sum of squares, one a channel:
//
//	eᵀ·M·e = Σ_d P_d·(e_d + Σ_{i>d} L_id·e_i)²
//
// So the last channel comes first, and channel d is rounded at x_d + Σ_{i>d} L_id·e_i, where the
// errors e = x - x' of the channels behind it are known. (LDLQ of Chee et al. 2023, arXiv
// 2307.13304, section 3; GPTQ is the same, Frantar et al. 2022, arXiv 2210.17323.) Codes lie, and
// decode, as others do.
//
//	x            [B, K, T, D] float32
//	scale, zero  [B, K, T/…, D/…] float32, decoded: value = scale·code + zero, each for as many
//	             tokens and channels in a row as there are too few of them
//	width        like scale: of the interval that a code stands for, about the same middle of the
//	             range as its values; nil: scale
//	factor       [B, K, D, D] float32, L without its diagonal; all 0: each channel is rounded alone
//	codes        [B, K, T, D] uint8
//
// Values that are not finite have no error to make up for, and groups of scale 0 get code 0.
func Feedback(x, scale, zero, width, factor *Node, bits int) (codes *Node) {
	if k := fedBackOf(x, scale, width, bits); k.taken(x.Graph()) {
		return k.call(x, scale, zero, width, factor)
	}
	return feedbackByLoops(x, scale, zero, width, factor, bits)
}

// feedbackByLoops is [Feedback] by graph operations.
func feedbackByLoops(x, scale, zero, width, factor *Node, bits int) (codes *Node) {
	full := x.Shape().Dimensions
	scale, zero = spread(scale, full), spread(zero, full)
	if width != nil {
		width = spread(width, full)
	}
	turned := func(x *Node) *Node { return Transpose(x, -1, -2) } // channels before tokens
	n := channelsAtOnce(x.Shape().Dim(-1))
	g, d := x.Graph(), []int{x.Shape().Dim(0), x.Shape().Dim(1), x.Shape().Dim(3), x.Shape().Dim(2)} // [B, K, D, T]
	none := gx.Zeros(g, shapes.Make(dtypes.Float32, d...))
	captured := []*Node{turned(factor), turned(x), turned(scale), turned(zero)}
	if width != nil {
		captured = append(captured, turned(width))
	}
	// Blocks of channels, the last one first. The errors of all channels behind a block come in one
	// product; those inside of it, one by one.
	out := gx.LoopOver(captured, []*Node{gx.Scalar(g, dtypes.Int32, d[2]-n), none, none},
		func(st []*Node) *Node { return gx.GreaterOrEqualScalar(st[0], 0) },
		func(captured, st []*Node) []*Node {
			first, errors, codes := st[0], st[1], st[2]
			zeroAt := gx.Scalar(first.Graph(), dtypes.Int32, 0)
			block := func(x *Node) *Node {
				return gx.DynamicSlice(x, []*Node{zeroAt, zeroAt, first, zeroAt}, []int{d[0], d[1], n, x.Shape().Dim(3)})
			}
			put := func(x, values *Node) *Node {
				return DynamicUpdateSlice(x, values, []*Node{zeroAt, zeroAt, first, zeroAt})
			}
			weights := block(captured[0])
			own := gx.DynamicSlice(weights, []*Node{zeroAt, zeroAt, zeroAt, first}, []int{d[0], d[1], n, n})
			fed := Dot(weights, errors).General([]int{3}, []int{0, 1}, []int{2}, []int{0, 1})
			var tokens []*Node
			for _, x := range captured[1:] {
				tokens = append(tokens, block(x))
			}
			made, wrong := feedbackInside(tokens, own, fed, bits)
			return []*Node{gx.AddScalar(first, -n), put(errors, wrong), put(codes, made)}
		})
	return byteOf(turned(out[2]))
}

// spread gives each token and channel of [B, K, T, D] the number of its group: x [B, K, T/…, D/…].
func spread(x *Node, full []int) *Node {
	d := x.Shape().Dimensions
	x = Reshape(x, d[0], d[1], d[2], 1, d[3], 1)
	return Reshape(gx.BroadcastToDims(x, d[0], d[1], d[2], full[2]/d[2], d[3], full[3]/d[3]), full...)
}

// channelsAtOnce is how many channels of dim make a block: a divisor of at most 16.
func channelsAtOnce(dim int) int {
	n := min(16, dim)
	for dim%n != 0 {
		n--
	}
	return n
}

// feedbackInside is [Feedback] for a block of n channels: tokens are x, scale, zero and perhaps
// width, [B, K, n, T], own the weights of its channels for one another [B, K, n, n], the row being
// the channel that is fed, and fed what the channels behind it add. It returns codes and errors,
// float32 [B, K, n, T].
func feedbackInside(tokens []*Node, own, fed *Node, bits int) (codes, errors *Node) {
	g, d := fed.Graph(), fed.Shape().Dimensions
	captured := append([]*Node{own, fed}, tokens...)
	none := gx.ZerosLike(fed)
	out := gx.LoopOver(captured, []*Node{gx.Scalar(g, dtypes.Int32, d[2]-1), none, none},
		func(st []*Node) *Node { return gx.GreaterOrEqualScalar(st[0], 0) },
		func(captured, st []*Node) []*Node {
			at, errors, codes := st[0], st[1], st[2]
			zeroAt := gx.Scalar(at.Graph(), dtypes.Int32, 0)
			place := []*Node{zeroAt, zeroAt, at, zeroAt}
			channel := func(x *Node) *Node { return gx.DynamicSlice(x, place, []int{d[0], d[1], 1, d[3]}) }
			x, scale, zero := channel(captured[2]), channel(captured[3]), channel(captured[4])
			// Errors of channels still to come are 0, so all of the block may be added.
			weights := gx.DynamicSlice(captured[0], place, []int{d[0], d[1], 1, d[2]})
			sum := channel(captured[1])
			for behind := d[2] - 1; behind >= 0; behind-- {
				weight := gx.BroadcastToDims(SliceAxis(weights, 3, AxisElem(behind)), sum.Shape().Dimensions...)
				sum = Add(sum, Mul(weight, SliceAxis(errors, 2, AxisElem(behind))))
			}
			target := Add(x, sum)
			target = Where(IsFinite(target), target, x) // the sum left float32
			steps := inSteps(Sub(target, zero), scale, bits)
			if len(captured) > 5 {
				half := float64(int(1)<<bits-1) / 2
				steps = gx.AddScalar(inSteps(Sub(target, Add(zero, gx.MulScalar(scale, half))), channel(captured[5]), bits), half)
			}
			code := gx.ClampScalar(Round(steps), 0, float64(int(1)<<bits-1))
			code = Where(keep(x, scale, nil), code, gx.ZerosLike(code))
			wrong := Sub(x, Add(Mul(code, scale), zero))
			wrong = Where(IsFinite(wrong), wrong, gx.ZerosLike(wrong))
			return []*Node{gx.AddScalar(at, -1), DynamicUpdateSlice(errors, wrong, place), DynamicUpdateSlice(codes, code, place)}
		})
	return out[2], out[1]
}
