package gx_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/testbackend"
)

// lessMean takes the mean off x [n]; twice it, with a call in a call.
func lessMean(functions *gx.Functions, twice bool, x *Node) *Node {
	return functions.Call(twice, []*Node{x}, func(in []*Node) []*Node {
		x := in[0]
		if twice {
			x = gx.MulScalar(x, 2)
			return []*Node{lessMean(functions, false, x)}
		}
		return []*Node{Sub(x, BroadcastToDims(gx.ReduceMeanAndKeep(x, 0), x.Shape().Dimensions...))}
	})[0]
}

// Functions give what their bodies give in place: by themselves, in a loop, in one another, with
// several shapes under one key. By hand: x = 1, 3 has mean 2: -1, 1; twice that: -2, 2; in a loop
// of three iterations -2, 2 -> -4, 4 -> -8, 8.
func TestCall(t *testing.T) {
	graph := MustNewExec(testbackend.XLA(t), func(x, y *Node) []*Node {
		var functions gx.Functions
		looped := gx.Loop([]*Node{gx.Scalar(x.Graph(), dtypes.Int32, 0), x},
			func(st []*Node) *Node { return gx.LessThanScalar(st[0], 3) },
			func(st []*Node) []*Node {
				return []*Node{gx.AddScalar(st[0], 1), lessMean(&functions, true, st[1])}
			})
		return []*Node{lessMean(&functions, false, x), lessMean(&functions, false, y), looped[1], lessMean(&functions, false, looped[1])}
	})
	defer graph.Finalize()
	out := graph.MustCall([]float32{1, 3}, []float32{1, 2, 6})
	for i, want := range [][]float32{{-1, 1}, {-2, -1, 3}, {-8, 8}, {-8, 8}} {
		if got := tensors.MustCopyFlatData[float32](out[i]); !equal(got, want) {
			t.Errorf("output %d: %v, want %v", i, got, want)
		}
	}
}

// Alone gives what its body gives in place, and hands on what is nil.
func TestAlone(t *testing.T) {
	graph := MustNewExec(testbackend.XLA(t), func(x, y *Node) []*Node {
		return gx.Alone([]*Node{x, nil, y}, func(in []*Node) []*Node {
			if len(in) != 3 || in[1] != nil {
				t.Errorf("inputs %v, want one, nil and one", in)
			}
			return []*Node{Sub(in[0], in[2]), Add(in[0], in[2])}
		})
	})
	defer graph.Finalize()
	out := graph.MustCall([]float32{1, 3}, []float32{2, 5})
	for i, want := range [][]float32{{-1, -2}, {3, 8}} {
		if got := tensors.MustCopyFlatData[float32](out[i]); !equal(got, want) {
			t.Errorf("output %d: %v, want %v", i, got, want)
		}
	}
}

func equal(got, want []float32) bool {
	for i := range want {
		if len(got) != len(want) || got[i] != want[i] {
			return false
		}
	}
	return true
}

// dumpChild is set in the process that compiles for TestCallStaysACall.
const dumpChild = "KVQ_TEST_CALLS"

// A call of gx stays a call in XLA's program, one of the graph package does not: that is the fault.
// Read off the programs that XLA writes down (--xla_dump_to), which it does for a whole process
// only. When the second count is not 0, graph.NewFunction does, and gx.Functions can go.
func TestCallStaysACall(t *testing.T) {
	if os.Getenv(dumpChild) != "" {
		compileCalls(t, "marked", func(x *Node) *Node {
			var functions gx.Functions
			return lessMean(&functions, false, lessMean(&functions, false, x))
		})
		compileCalls(t, "unmarked", func(x *Node) *Node {
			f := NewFunction(x.Graph(), "double", func(g *Graph) []*Node {
				x := Parameter(g, "x", x.Shape())
				return []*Node{Add(x, x)}
			})
			return f.Call(f.Call(x)...)[0]
		})
		return
	}
	testbackend.XLA(t) // skips where there is none
	dir := t.TempDir()
	child := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$")
	child.Env = append(os.Environ(), dumpChild+"=1", "XLA_FLAGS="+os.Getenv("XLA_FLAGS")+" --xla_dump_to="+dir)
	if out, err := child.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for name, want := range map[string]int{"marked": 2, "unmarked": 0} {
		files, err := filepath.Glob(filepath.Join(dir, "*."+name+"*after_optimizations.txt"))
		if err != nil || len(files) != 1 {
			t.Fatalf("programs of %s: %v, %v, want one", name, files, err)
		}
		text, err := os.ReadFile(files[0])
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Count(string(text), " call("); got != want {
			t.Errorf("%s: %d calls in XLA's program, want %d", name, got, want)
		}
	}
}

func compileCalls(t *testing.T, name string, fn func(x *Node) *Node) {
	t.Helper()
	graph := MustNewExec(testbackend.XLA(t), fn).WithName(name)
	defer graph.Finalize()
	if _, err := graph.Compile(shapes.Make(dtypes.Float32, 4096)); err != nil {
		t.Fatal(err)
	}
}

// BroadcastToDims repeats what the graph package's does.
func TestBroadcastToDims(t *testing.T) {
	for _, c := range []struct{ from, to []int }{
		{[]int{2, 3}, []int{2, 3}}, {[]int{2, 1, 3}, []int{2, 4, 3}}, {[]int{1, 1, 3}, []int{2, 4, 3}}, {[]int{1, 1}, []int{2, 1}}, {nil, []int{2, 3}}, {[]int{1}, []int{1}},
	} {
		graph := MustNewExec(testbackend.XLA(t), func(x *Node) []*Node {
			return []*Node{gx.BroadcastToDims(x, c.to...), BroadcastToDims(x, c.to...)}
		})
		x := tensors.FromShape(shapes.Make(dtypes.Float32, c.from...))
		tensors.MustMutableFlatData(x, func(flat []float32) {
			for i := range flat {
				flat[i] = float32(i)
			}
		})
		out := graph.MustCall(x)
		if !out[0].Equal(out[1]) {
			t.Errorf("%v to %v: %v, want %v", c.from, c.to, out[0].Value(), out[1].Value())
		}
		graph.Finalize()
	}
}
