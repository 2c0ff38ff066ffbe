package gx_test

import (
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/testbackend"
)

// triangle sums 1+..+k for k = 1..n with a loop in a loop: n(n+1)(n+2)/6. By hand: n = 4: 1+3+6+10
// = 20.
func triangle(n *graph.Node) *graph.Node {
	g := n.Graph()
	zero := func(g *graph.Graph) *graph.Node { return gx.Scalar(g, dtypes.Int32, 0) }
	out := gx.Loop([]*graph.Node{zero(g), zero(g), n},
		func(st []*graph.Node) *graph.Node { return graph.LessThan(st[0], st[2]) },
		func(st []*graph.Node) []*graph.Node {
			k := gx.AddScalar(st[0], 1)
			inner := gx.LoopOver([]*graph.Node{k}, []*graph.Node{zero(k.Graph()), k},
				func(in []*graph.Node) *graph.Node { return gx.GreaterThanScalar(in[1], 0) },
				func(captured, in []*graph.Node) []*graph.Node {
					// k + 1 - in[1] runs through 1..k.
					term := graph.Sub(gx.AddScalar(captured[0], 1), in[1])
					return []*graph.Node{graph.Add(in[0], term), gx.SubScalar(in[1], 1)}
				})
			return []*graph.Node{k, graph.Add(st[1], inner[0]), st[2]}
		})
	return out[1]
}

func TestNestedLoops(t *testing.T) {
	exec := graph.MustNewExec(testbackend.XLA(t), triangle)
	for n, want := range map[int32]int32{0: 0, 1: 1, 4: 20, 10: 220} {
		if got := exec.MustCall1(n).Value().(int32); got != want {
			t.Errorf("sum of the first %d triangular numbers: got %d, want %d", n, got, want)
		}
	}
}

// TestNestedWhileFault shows why closureOfCurrent exists: graph.NewClosure alone cannot nest. When
// this test fails, GoMLX can, and nesting.go can go.
func TestNestedWhileFault(t *testing.T) {
	exec := graph.MustNewExec(testbackend.XLA(t), func(n *graph.Node) *graph.Node {
		type nodes = []*graph.Node
		g := n.Graph()
		loop := func(x *graph.Node, body func(x *graph.Node) *graph.Node) *graph.Node {
			param := func(g *graph.Graph) *graph.Node { return graph.Parameter(g, "x", x.Shape()) }
			cond := graph.NewClosure(g, func(g *graph.Graph) nodes {
				return nodes{graph.LessThan(param(g), graph.Const(g, int32(4)))}
			})
			step := graph.NewClosure(g, func(g *graph.Graph) nodes { return nodes{body(param(g))} })
			return graph.While(cond, step, x)[0]
		}
		one := func(x *graph.Node) *graph.Node { return graph.Add(x, graph.Const(g, int32(1))) }
		return loop(n, func(x *graph.Node) *graph.Node { return loop(x, one) })
	})
	if out, err := exec.Call(int32(0)); err == nil {
		t.Fatalf("GoMLX built a While inside of a While (got %v): remove internal/gx/nesting.go", out)
	}
}
