package pick

import (
	"math/bits"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.

	"github.com/kvqbook/kvqbook/internal/gx"
)

// largestReaching is the one search that sampling is made of. For each row it returns the largest
// threshold T such that the elements with key >= T hold at least a share of the row's whole weight:
//
//	sum(weight[v] for key[v] >= T) >= share · sum(weight)
//
//	keys [B, V] uint32 below 2^keyBits, weights [B, V] float32 (not negative), share [B] float32 in (0, 1] -> [B, 1] uint32
//
// T is the key of an element with positive weight. A sort would give the same, but costs more on a
// vocabulary, and XLA sorts through a closure. T is found four bits at a time from the top: a round
// tries sixteen thresholds in one pass. Sums are float32, always over the same tree, so that they
// fall as T rises whatever the rounding.
func largestReaching(keys, weights, share *Node, keyBits int) *Node {
	g, s := keys.Graph(), keys.Shape()
	b, v := s.Dim(0), s.Dim(1)
	trial := []int{b, v, searchWidth}
	keys = gx.BroadcastToDims(Reshape(keys, b, v, 1), trial...)
	weights = gx.BroadcastToDims(Reshape(weights, b, v, 1), trial...)
	none := gx.Zeros(g, weights.Shape())
	digits := Iota(g, shapes.Make(dtypes.Uint32, b, searchWidth), 1)

	found := gx.Zeros(g, shapes.Make(dtypes.Uint32, b, 1))
	var target *Node
	for shift := (keyBits - 1) / searchBits * searchBits; shift >= 0; shift -= searchBits {
		thresholds := Add(gx.BroadcastToDims(found, b, searchWidth), gx.ShiftLeft(digits, shift)) // [B, 16]
		reached := GreaterOrEqual(keys, gx.BroadcastToDims(Reshape(thresholds, b, 1, searchWidth), trial...))
		sums := gx.ReduceSum(Where(reached, weights, none), 1) // [B, 16], falling
		if target == nil {
			whole := Slice(sums, AxisRange(), AxisRange(0, 1)) // thresholds from 0 on: everything
			target = gx.BroadcastToDims(Mul(whole, Reshape(share, b, 1)), b, searchWidth)
		}
		enough := ConvertDType(GreaterOrEqual(sums, target), dtypes.Uint32)
		above := Slice(enough, AxisRange(), AxisRange(1)) // digit 0 is taken when no other is
		digit := gx.ReduceSumAndKeep(above, -1)           // [B, 1]
		found = Add(found, gx.ShiftLeft(digit, shift))
	}
	return found
}

const (
	searchBits  = 4 // a round settles so many bits of the threshold
	searchWidth = 1 << searchBits
)

// order maps float32 numbers to uint32 keys in the same order: x < y exactly where order(x) <
// order(y). Positive numbers get their sign bit set, negative ones all bits flipped.
func order(x *Node) *Node {
	code := Bitcast(x, dtypes.Uint32)
	sign := gx.Fill(x.Graph(), code.Shape(), uint32(1)<<31)
	return Where(LessThan(code, sign), Add(code, sign), BitwiseNot(code))
}

// indexKeys numbers the vocabulary, [B, V] uint32, and says how many bits that takes.
func indexKeys(g *Graph, b, v int) (keys *Node, keyBits int) {
	return Iota(g, shapes.Make(dtypes.Uint32, b, v), 1), bits.Len(uint(v - 1))
}
