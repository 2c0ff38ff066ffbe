package kvq_test

import (
	"slices"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/layers"
	"github.com/gomlx/gomlx/ml/layers/norm"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/testbackend"
	. "github.com/kvqbook/kvqbook/kvq"
)

// block is a piece of a model: an embedding, a norm, a dense layer, dropout. ids [2] -> [2, 8].
func block(scope *model.Scope, ids *Node) *Node {
	x := layers.Embedding(scope.In("embedding"), ExpandAxes(ids, -1), dtypes.Float32, 10, 8)
	x = norm.LayerNorm(scope.In("norm"), x, -1).Done()
	return layers.DropoutStatic(scope, Tanh(layers.Dense(scope.In("dense"), x, true, 8)), 0.5)
}

// count repeats body n times with a state.
func count(scope *model.Scope, n int, state *Node, body func(scope *model.Scope, i, state *Node) *Node) *Node {
	return Loop(scope, []*Node{gx.Scalar(state.Graph(), dtypes.Int32, 0), state},
		func(st []*Node) *Node { return gx.LessThanScalar(st[0], n) },
		func(scope *model.Scope, st []*Node) []*Node {
			return []*Node{gx.AddScalar(st[0], 1), body(scope, st[0], st[1])}
		})[1]
}

func loopExec[F model.ExecGraphFn](t *testing.T, store *model.Store, f F) *model.Exec {
	t.Helper()
	exec, err := model.NewExec(testbackend.XLA(t), store, f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(exec.Finalize)
	return exec
}

// A model of GoMLX's layers runs in a loop, with the variables that it has outside of it: alone in
// a graph, beside the same layers, and in a loop in a loop.
func TestLoopOfLayers(t *testing.T) {
	sum := func(scope *model.Scope, ids *Node) *Node {
		zero := gx.Zeros(ids.Graph(), shapes.Make(dtypes.Float32, 2, 8))
		out := Loop(scope, []*Node{gx.Scalar(ids.Graph(), dtypes.Int32, 0), ids, zero},
			func(st []*Node) *Node { return gx.LessThanScalar(st[0], 3) },
			func(scope *model.Scope, st []*Node) []*Node {
				return []*Node{gx.AddScalar(st[0], 1), gx.AddScalar(st[1], 1), Add(st[2], block(scope.In("model"), st[1]))}
			})
		return out[2]
	}
	unrolled := func(scope *model.Scope, ids *Node) *Node {
		var sum *Node
		for i := range 3 {
			x := block(scope.ResetVisited().In("model"), gx.AddScalar(ids, i))
			if sum == nil {
				sum = x
			} else {
				sum = Add(sum, x)
			}
		}
		return sum
	}
	store := decoderStore()
	ids := []int32{1, 4}
	want := loopExec(t, store, unrolled).MustExec(ids)[0]
	variables := store.NumVariables()
	for name, f := range map[string]func(scope *model.Scope, ids *Node) *Node{
		"alone": sum,
		"beside the layers": func(scope *model.Scope, ids *Node) *Node {
			a, b := unrolled(scope, ids), sum(scope, ids)
			return meanOf(a, b)
		},
		"in a loop": func(scope *model.Scope, ids *Node) *Node {
			zero := gx.Zeros(ids.Graph(), shapes.Make(dtypes.Float32, 2, 8))
			return Loop(scope, []*Node{gx.Scalar(ids.Graph(), dtypes.Int32, 0), ids, zero},
				func(st []*Node) *Node { return gx.LessThanScalar(st[0], 2) },
				func(scope *model.Scope, st []*Node) []*Node {
					return []*Node{gx.AddScalar(st[0], 1), st[1], Add(st[2], gx.MulScalar(sum(scope, st[1]), 0.5))}
				})[2]
		},
	} {
		got := loopExec(t, store, f).MustExec(ids)[0]
		if d := largestDifference(got, want); d > 1e-5 {
			t.Errorf("%s: off by %g", name, d)
		}
	}
	if n := store.NumVariables(); n != variables {
		t.Errorf("%d variables after the loops, %d before", n, variables)
	}
	// a store that is new: the loop's own graph makes the variables
	fresh := decoderStore()
	loopExec(t, fresh, sum).MustExec(ids)
	if fresh.NumVariables() < 5 {
		t.Errorf("%d variables, want those of an embedding, a norm and a dense layer", fresh.NumVariables())
	}
}

// meanOf is the mean of two nodes.
func meanOf(a, b *Node) *Node { return gx.MulScalar(Add(a, b), 0.5) }

// A variable that the body changes, such as a random state, goes on from iteration to iteration and
// from call to call.
func TestLoopCarriesChangedVariables(t *testing.T) {
	store := decoderStore()
	exec := loopExec(t, store, func(scope *model.Scope, x *Node) *Node {
		return count(scope, 4, x, func(scope *model.Scope, i, state *Node) *Node {
			counter := scope.VariableWithValue("counter", int32(0))
			counter.SetNodeValue(gx.AddScalar(counter.NodeValue(i), 1))
			row := Reshape(scope.RandomUniform(i.Graph(), shapes.Make(dtypes.Float32, 3)), 1, 3)
			return DynamicUpdateSlice(state, row, []*Node{i, gx.Scalar(i.Graph(), dtypes.Int32, 0)})
		})
	})
	var seen []float32
	for call := range 2 {
		out := tensors.MustCopyFlatData[float32](exec.MustExec([][]float32{{0, 0, 0}, {0, 0, 0}, {0, 0, 0}, {0, 0, 0}})[0])
		for _, x := range out {
			if slices.Contains(seen, x) {
				t.Errorf("call %d draws %g a second time: %v after %v", call, x, out, seen)
			}
		}
		seen = append(seen, out...)
		if got := store.GetVariable("/counter").MustValue().Value().(int32); got != int32(4*(call+1)) {
			t.Errorf("after %d calls of 4 iterations the counter is %d", call+1, got)
		}
	}
}
