package gx

import (
	"slices"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/internal/testbackend"
)

// A custom call that every XLA knows: LayoutConstraint gives back its input. In the main function
// and in a loop, where it takes a value of the loop's own.
func TestCustomCall(t *testing.T) {
	exec := graph.MustNewExec(testbackend.XLA(t), func(x *graph.Node) []*graph.Node {
		same := func(x *graph.Node) *graph.Node {
			return CustomCall("LayoutConstraint", "", []*graph.Node{x}, x.Shape())[0]
		}
		out := Loop([]*graph.Node{Scalar(x.Graph(), dtypes.Int32, 0), x},
			func(st []*graph.Node) *graph.Node { return LessThanScalar(st[0], 3) },
			func(st []*graph.Node) []*graph.Node {
				return []*graph.Node{AddScalar(st[0], 1), MulScalar(same(AddScalar(st[1], 1)), 2)}
			})
		return []*graph.Node{same(MulScalar(x, 3)), out[1]}
	})
	defer exec.Finalize()
	out := exec.MustCall([][]float32{{1, 2}, {3, 4}})
	// (((x+1)·2 + 1)·2 + 1)·2 = 8x + 14
	for i, want := range [][]float32{{3, 6, 9, 12}, {22, 30, 38, 46}} {
		if got := tensors.MustCopyFlatData[float32](out[i]); !slices.Equal(got, want) {
			t.Errorf("output %d: %v, want %v", i, got, want)
		}
	}
}
