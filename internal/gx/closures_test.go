package gx_test

import (
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/google/go-cmp/cmp"
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/testbackend"
)

// siblings builds a loop whose condition and body both need the same scalar, and runs it: x doubles
// while x*2 < 100.
func siblings(backend compute.Backend, double, zero func(x *Node) *Node) (float32, error) {
	exec, err := NewExec(backend, func(x *Node) *Node {
		g := x.Graph()
		cond := NewClosure(g, func(g *Graph) []*Node {
			x := Parameter(g, "x", shapes.Make(dtypes.Float32))
			return []*Node{LessThan(double(x), Const(g, float32(100)))}
		})
		body := NewClosure(g, func(g *Graph) []*Node {
			x := Parameter(g, "x", shapes.Make(dtypes.Float32))
			return []*Node{Add(double(x), zero(x))}
		})
		return While(cond, body, x)[0]
	})
	if err != nil {
		return 0, err
	}
	out, err := exec.Exec1(float32(3))
	if err != nil {
		return 0, err
	}
	return tensors.ToScalar[float32](out), nil
}

// The fault that this package works around, in GoMLX v0.28.16: Graph.getScalarConst
// (core/graph/graph.go) caches scalar constants for the graph, so the body is handed the
// condition's constant 2. When this test fails, the fault is mended and package gx can be replaced
// by the functions of the graph package.
func TestScalarCacheFault(t *testing.T) {
	backend := testbackend.XLA(t)
	got, err := siblings(backend, func(x *Node) *Node { return MulScalar(x, 2) }, ZerosLike)
	if err == nil {
		t.Fatalf("graph.MulScalar worked in two sibling closures (result %v): GoMLX is mended, package gx can go", got)
	}
	t.Logf("as expected: %v", err)
}

// sums builds a loop whose condition and body both reduce: x [2] doubles while its sum is below
// 100.
func sums(backend compute.Backend, newClosure func(*Graph, func(*Graph) []*Node) *Function, sum func(*Node, ...int) *Node) (float32, error) {
	exec, err := NewExec(backend, func(x *Node) *Node {
		g := x.Graph()
		cond := newClosure(g, func(g *Graph) []*Node {
			x := Parameter(g, "x", shapes.Make(dtypes.Float32, 2))
			return []*Node{LessThan(sum(x), Const(g, float32(100)))}
		})
		body := newClosure(g, func(g *Graph) []*Node {
			x := Parameter(g, "x", shapes.Make(dtypes.Float32, 2))
			return []*Node{BroadcastToDims(sum(x), 2)} // both become the sum: the sum doubles
		})
		return sum(While(cond, body, x)[0])
	})
	if err != nil {
		return 0, err
	}
	out, err := exec.Exec1([]float32{1, 2})
	if err != nil {
		return 0, err
	}
	return tensors.ToScalar[float32](out), nil
}

// The second fault, in go-xla v0.4.13: Function.getReductionFn (compute/xla/ops_reduce.go) caches
// the adding function of a reduction for the whole builder, but it belongs to the function in which
// it was first used.
func TestReductionCacheFault(t *testing.T) {
	got, err := sums(testbackend.XLA(t), NewClosure, ReduceSum)
	if err == nil {
		t.Fatalf("graph.ReduceSum worked in three functions of a graph (result %v): go-xla is mended, gx.ReduceSum can go", got)
	}
	t.Logf("as expected: %v", err)
}

func TestReductionsInSiblingClosures(t *testing.T) {
	backend := testbackend.XLA(t)
	for name, build := range map[string]func() (float32, error){
		"gx reduction, plain closures": func() (float32, error) { return sums(backend, NewClosure, gx.ReduceSum) },
		"graph reduction, gx closures": func() (float32, error) { return sums(backend, gx.NewClosure, ReduceSum) },
	} {
		got, err := build()
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if got != 192 { // 3, 6, 12, 24, 48, 96, 192: the first that is not below 100.
			t.Errorf("%s: sum %v, wanted 192", name, got)
		}
	}
}

// A caller's own reduction stays usable after one of gx in another function: its cache is put back.
func TestReductionsLeaveTheCallersCacheAlone(t *testing.T) {
	exec := MustNewExec(testbackend.XLA(t), func(x *Node) *Node {
		before := ReduceSum(x)
		looped := gx.Loop([]*Node{x},
			func(s []*Node) *Node { return LessThan(gx.ReduceMax(s[0]), Const(s[0].Graph(), float32(4))) },
			func(s []*Node) []*Node { return []*Node{gx.AddScalar(gx.MulScalar(s[0], 2), 0)} })[0]
		return Add(before, Add(ReduceSum(looped), gx.ReduceSum(looped)))
	})
	got := tensors.ToScalar[float32](exec.MustExec1([]float32{1, 2}))
	if got != 3+6+6 { // The loop doubles once: 2, 4.
		t.Errorf("got %v, wanted 15", got)
	}
}

func TestSiblingClosuresShareScalars(t *testing.T) {
	got, err := siblings(testbackend.XLA(t), func(x *Node) *Node { return gx.MulScalar(x, 2) }, gx.ZerosLike)
	if err != nil {
		t.Fatal(err)
	}
	if got != 96 { // 3, 6, 12, 24, 48, 96: 96*2 is not below 100.
		t.Errorf("loop ended at %v, wanted 96", got)
	}
}

// Every helper is built in two sibling closures, which fails as soon as one of them touches GoMLX's
// scalar cache.
func TestEveryHelperIsSafeInClosures(t *testing.T) {
	backend := testbackend.XLA(t)
	all := func(x *Node) *Node { // [2, 3] -> [2, 3]
		g := x.Graph()
		mask := gx.Ones(g, shapes.Make(dtypes.Bool, 2, 3))
		y := gx.Softmax(gx.ClampScalar(gx.AddScalar(gx.MulScalar(gx.SubScalar(gx.DivScalar(x, 2), 1), 3), 1), -5.0, 5.0), mask)
		y = Add(y, gx.MaxScalar(gx.MinScalar(x, 1), 0))
		y = Add(y, gx.PowScalar(gx.MaxScalar(x, 0), 2))
		y = Add(Add(y, gx.ZerosLike(y)), gx.OnesLike(y))
		y = Sub(y, gx.ReduceMeanAndKeep(y, -1))
		bits := gx.ShiftRight(gx.ShiftLeft(gx.AndScalar(Iota(g, shapes.Make(dtypes.Uint8, 2, 3), 1), 1), 2), 1)
		y = Add(y, ConvertDType(bits, y.DType()))
		either := LogicalOr(gx.EqualScalar(x, 1), LogicalOr(gx.LessThanScalar(x, 1), gx.GreaterThanScalar(x, 2)))
		either = LogicalAnd(either, LogicalOr(gx.LessOrEqualScalar(x, 9), gx.GreaterOrEqualScalar(x, 1)))
		y = Add(y, Sub(gx.ReduceMaxAndKeep(x, -1), gx.ReduceMinAndKeep(x, -1)))
		y = Add(y, ConvertDType(InsertAxes(gx.ArgMax(x, -1), -1), y.DType()))
		either = LogicalAnd(either, gx.LogicalAny(either))
		return Where(either, y, gx.Fill(g, y.Shape(), 0.5))
	}
	exec := MustNewExec(backend, func(x *Node) (looped, direct *Node) {
		direct = all(x)
		g := x.Graph()
		cond := NewClosure(g, func(g *Graph) []*Node {
			i := Parameter(g, "i", shapes.Make(dtypes.Int32))
			x := Parameter(g, "x", shapes.Make(dtypes.Float32, 2, 3))
			// all(x) is finite, so the condition is that i is below 1; it is here to be built in
			// this closure.
			return []*Node{LogicalAnd(gx.LessThanScalar(i, 1), gx.LogicalAll(IsFinite(all(x))))}
		})
		body := NewClosure(g, func(g *Graph) []*Node {
			i := Parameter(g, "i", shapes.Make(dtypes.Int32))
			x := Parameter(g, "x", shapes.Make(dtypes.Float32, 2, 3))
			return []*Node{gx.AddScalar(i, 1), all(x)}
		})
		return While(cond, body, Const(g, int32(0)), x)[1], direct
	})
	looped, direct := exec.MustExec2([][]float32{{-1, 0, 0.5}, {1, 2, 3}})
	if diff := cmp.Diff(direct.Value(), looped.Value()); diff != "" {
		t.Errorf("the helpers give other values inside a closure (-direct +looped):\n%s", diff)
	}
}

func TestDivScalarDivides(t *testing.T) {
	// 1/3 rounded, times 5, is 1.6666667 in float32, but 5/3 is 1.6666666: one unit in the last
	// place apart.
	got := MustNewExec(testbackend.Go(t), func(x *Node) *Node { return gx.DivScalar(x, 3) }).MustExec1([]float32{5, 7, 9, 11})
	var want []float32
	for _, x := range []float32{5, 7, 9, 11} {
		want = append(want, x/3)
	}
	if diff := cmp.Diff(want, got.Value()); diff != "" {
		t.Errorf("DivScalar(x, 3) (-want +got):\n%s", diff)
	}
}
