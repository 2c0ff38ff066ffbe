package gx_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/google/go-cmp/cmp"

	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/testbackend"
)

// A slice is the same on both backends, also one that would reach over an end.
func TestDynamicSlice(t *testing.T) {
	x := [][]float32{{0, 1, 2, 3}, {10, 11, 12, 13}, {20, 21, 22, 23}}
	for name, backend := range map[string]compute.Backend{"XLA": testbackend.XLA(t), "pure Go": testbackend.Go(t)} {
		exec := MustNewExec(backend, func(x, row, column *Node) []*Node {
			flat := Reshape(x, 12)
			return []*Node{gx.DynamicSlice(x, []*Node{row, column}, []int{2, 3}), gx.DynamicSlice(flat, []*Node{column}, []int{2})}
		})
		for _, c := range []struct {
			row, column int32
			matrix      [][]float32
			list        []float32
		}{
			{0, 0, [][]float32{{0, 1, 2}, {10, 11, 12}}, []float32{0, 1}},
			{1, 1, [][]float32{{11, 12, 13}, {21, 22, 23}}, []float32{1, 2}},
			{2, 100, [][]float32{{11, 12, 13}, {21, 22, 23}}, []float32{22, 23}},
			{-1, -7, [][]float32{{0, 1, 2}, {10, 11, 12}}, []float32{0, 1}},
		} {
			out := exec.MustCall(x, c.row, c.column)
			if diff := cmp.Diff([]any{c.matrix, c.list}, []any{out[0].Value(), out[1].Value()}); diff != "" {
				t.Errorf("%s, from %d, %d (-want +got):\n%s", name, c.row, c.column, diff)
			}
		}
		exec.Finalize()
	}
}

// looped builds x -> x in a loop of three rounds of fn.
func looped(newClosure func(*Graph, func(*Graph) []*Node) *Function, x *Node, fn func(x *Node) *Node) *Node {
	g := x.Graph()
	parameters := func(g *Graph) (i, y *Node) {
		return Parameter(g, g.UniqueName("i"), Scalar(g, dtypes.Int32, 0).Shape()), Parameter(g, g.UniqueName("x"), x.Shape())
	}
	cond := newClosure(g, func(g *Graph) []*Node {
		i, _ := parameters(g)
		return []*Node{LessThan(i, Const(g, int32(3)))}
	})
	body := newClosure(g, func(g *Graph) []*Node {
		i, y := parameters(g)
		return []*Node{Add(i, Const(g, int32(1))), fn(y)}
	})
	return While(cond, body, Const(g, int32(0)), x)[1]
}

// Faults of the pure-Go backend in compute v0.1.14, each as short as it can be, and the same with
// this package. When one of them fails, the fault is mended and its workaround in purego.go can go.
func TestPureGoFaults(t *testing.T) {
	// each value doubles and loses its row's first: by hand below
	lessFirst := func(x *Node) *Node {
		return Sub(Add(x, x), BroadcastToDims(Slice(x, AxisRange(), AxisElem(0)), 2, 3))
	}
	x := [][]float32{{1, 2, 3}, {0, 1, 5}}
	thrice := [][]float32{{1, 9, 17}, {0, 8, 40}} // (2x-f) three times: 8x - 7f
	for _, c := range []struct {
		name, fault string
		plain, ours func(x *Node) *Node
		want        [][]float32
	}{
		{"dynamic slice", `"DynamicSlice" not implemented`,
			func(x *Node) *Node {
				zero := Const(x.Graph(), int32(0))
				return DynamicSlice(x, []*Node{zero, zero}, []int{1, 2})
			},
			func(x *Node) *Node {
				zero := Const(x.Graph(), int32(0))
				return gx.DynamicSlice(x, []*Node{zero, zero}, []int{1, 2})
			}, [][]float32{{1, 2}}},
		{"a broadcast in a closure", "not computed yet",
			func(x *Node) *Node { return looped(NewClosure, x, lessFirst) },
			func(x *Node) *Node { return looped(gx.NewClosure, x, lessFirst) }, thrice},
		{"a broadcast in a function", "not computed yet",
			func(x *Node) *Node {
				f := NewFunction(x.Graph(), "less", func(g *Graph) []*Node { return []*Node{lessFirst(Parameter(g, "x", x.Shape()))} })
				return f.Call(x)[0]
			},
			func(x *Node) *Node {
				var functions gx.Functions
				return functions.Call(0, []*Node{x}, func(in []*Node) []*Node { return []*Node{lessFirst(in[0])} })[0]
			}, [][]float32{{1, 3, 5}, {0, 2, 10}}},
		{"a loop in a loop", "must be a closure of the current function",
			func(x *Node) *Node {
				return looped(NewClosure, x, func(x *Node) *Node { return looped(NewClosure, x, func(x *Node) *Node { return Add(x, x) }) })
			},
			func(x *Node) *Node {
				return looped(gx.NewClosure, x, func(x *Node) *Node { return looped(gx.NewClosure, x, func(x *Node) *Node { return Add(x, x) }) })
			}, [][]float32{{512, 1024, 1536}, {0, 512, 2560}}},
		{"one value twice in a loop's state, the last not used", "index out of range",
			func(x *Node) *Node { x = Add(x, x); return twice(NewClosure, x)[0] },
			func(x *Node) *Node {
				x = Add(x, x)
				return gx.Loop([]*Node{x, x}, notYet, func(st []*Node) []*Node { return []*Node{Add(st[0], st[1]), st[1]} })[0]
			}, [][]float32{{4, 8, 12}, {0, 4, 20}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			plain, err := NewExec(testbackend.Go(t), c.plain)
			if err != nil {
				t.Fatal(err)
			}
			if out, err := plain.Call(x); err == nil {
				t.Errorf("worked without package gx (%v): mended", out[0].Value())
			} else if !strings.Contains(err.Error(), c.fault) {
				t.Errorf("%v, the fault was %q", err, c.fault)
			}
			out, err := MustNewExec(testbackend.Go(t), c.ours).Call(x)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, out[0].Value()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// twice adds x to itself until the largest is 12 or more, with x in the loop's state twice.
func twice(newClosure func(*Graph, func(*Graph) []*Node) *Function, x *Node) []*Node {
	g := x.Graph()
	parameters := func(g *Graph) []*Node {
		return []*Node{Parameter(g, g.UniqueName("x"), x.Shape()), Parameter(g, g.UniqueName("y"), x.Shape())}
	}
	cond := newClosure(g, func(g *Graph) []*Node { return []*Node{notYet(parameters(g))} })
	body := newClosure(g, func(g *Graph) []*Node {
		st := parameters(g)
		return []*Node{Add(st[0], st[1]), st[1]}
	})
	return While(cond, body, x, x)
}

func notYet(st []*Node) *Node {
	return LessThan(gx.ReduceMax(st[0]), Const(st[0].Graph(), float32(12)))
}

// The fault behind go:ops_sequential: with two workers, both are executors that wait, and a product
// inside of a loop waits for a third. When the plain loop ends, gx.Check can ask for less.
func TestPureGoLoopStops(t *testing.T) {
	square := func(x *Node) *Node { return Dot(x, x).General([]int{2}, []int{0}, []int{1}, []int{0}) }
	call := func(config string) <-chan error {
		backend, err := compute.NewWithConfig(config)
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		exec := MustNewExec(backend, func(x *Node) *Node { return looped(NewClosure, x, square) })
		go func() {
			_, err := exec.Call(tensors.FromShape(shapes.Make(dtypes.Float32, 16, 64, 64)))
			ended <- err
		}()
		return ended
	}
	select {
	case err := <-call("go:parallelism=2"):
		t.Errorf("the loop ended (%v): mended", err)
	case <-time.After(time.Second):
	}
	select {
	case err := <-call("go:parallelism=2,ops_sequential"):
		if err != nil {
			t.Error(err)
		}
	case <-time.After(30 * time.Second):
		t.Error("a loop with a product does not end with ops_sequential either")
	}
}

// Sorting makes a closure of its own: it works in a loop too, on both backends.
func TestSortInLoop(t *testing.T) {
	for name, backend := range map[string]compute.Backend{"XLA": testbackend.XLA(t), "pure Go": testbackend.Go(t)} {
		largest := func(x *Node) *Node {
			values, _ := TopK(x, 3, -1)
			return Add(values, x)
		}
		plain, err := NewExec(backend, func(x *Node) *Node { return looped(NewClosure, x, largest) })
		if err == nil {
			_, err = plain.Call([][]float32{{1, 3, 2}, {0, 0, 1}})
		}
		if err == nil {
			t.Errorf("%s: sorting in a plain closure worked: mended", name)
		}
		out, err := MustNewExec(backend, func(x *Node) *Node { return looped(gx.NewClosure, x, largest) }).Call([][]float32{{1, 3, 2}, {0, 0, 1}})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		// 1 3 2 -> 4 5 3 -> 9 9 6 -> 18 18 12
		if diff := cmp.Diff([][]float32{{18, 18, 12}, {4, 2, 2}}, out[0].Value()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// Caches and models slice by this package, so that they run on the pure-Go backend.
func TestNoPlainDynamicSlice(t *testing.T) {
	plain := regexp.MustCompile(`(^|[^.\w])DynamicSlice\(|graph\.DynamicSlice\(`)
	for _, dir := range []string{"../../kvq", "../../llama", "../generate", "../pick", "../words"} {
		err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			if line := plain.Find(text); line != nil {
				t.Errorf("%s: want gx.DynamicSlice, got %q", path, line)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
