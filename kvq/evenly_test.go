package kvq

import (
	"slices"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/kvqbook/kvqbook/internal/testbackend"
)

// Four tokens of rows of 10, 7 and 2 tokens in 10 slots:
//
//	10: 0, 10/4, 20/4, 30/4       ->         0 2 5 7
//	 7: 0, 7/4, 14/4, 21/4, from 3 on ->     3 4 6 8
//	 2: all of them, from 8 on    ->         8 9 and two that are none
func TestEvenly(t *testing.T) {
	out := MustNewExec(testbackend.XLA(t), func(start *Node) []*Node {
		queries := Iota(start.Graph(), shapes.Make(dtypes.Int32, 3, 2, 10, 1), 2)
		heads := Iota(start.Graph(), queries.Shape(), 1)
		picked, token := evenly(Add(queries, Mul(heads, Const(start.Graph(), int32(100)))), start, 4)
		return []*Node{picked, token}
	}).MustCall([]int32{0, 3, 8})
	want := []int32{0, 2, 5, 7, 100, 102, 105, 107, 3, 4, 6, 8, 103, 104, 106, 108, 8, 9, 9, 9, 108, 109, 109, 109}
	if got := tensors.MustCopyFlatData[int32](out[0]); !slices.Equal(got, want) {
		t.Errorf("queries of tokens %v, wanted %v", got, want)
	}
	valid := []bool{true, true, true, true, true, true, true, true, true, true, false, false}
	if got := tensors.MustCopyFlatData[bool](out[1]); !slices.Equal(got, valid) {
		t.Errorf("tokens %v, wanted %v", got, valid)
	}
}
