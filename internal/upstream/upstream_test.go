package upstream

import (
	"fmt"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/gomlx/gomlx/ml/layers"
	"github.com/gomlx/gomlx/ml/layers/attention/kvcache"
	"github.com/gomlx/gomlx/ml/layers/attention/pos"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/google/go-cmp/cmp"

	"github.com/kvqbook/kvqbook/internal/testbackend"
)

// updated is an empty cache of kvcache for heads·slots tokens, after an update with tokens
// [1, t, heads, 1] that are 10·token + head.
func updated(g *Graph, heads, slots, t int) *Node {
	store := model.NewStore()
	scope := store.RootScope().In("attention")
	cache := kvcache.NewKVCache().WithSinkPositions(0).WithMaxSeqLenPerLayerType([]int{slots, slots})
	empty := Zeros(g, shapes.Make(dtypes.Float32, 1, heads, slots, 1))
	nodes := kvcache.KVCacheNodes{scope.Scope() + kvcache.KeySuffix: empty, scope.Scope() + kvcache.ValueSuffix: empty}
	shape := shapes.Make(dtypes.Float32, 1, t, heads, 1)
	tokens := Add(MulScalar(Iota(g, shape, 1), 10), Iota(g, shape, 2))
	cache.Update(scope, nodes, tokens, tokens, Const(g, int32(0)))
	keys, _ := cache.Get(nodes, scope.Scope())
	return keys
}

// kvcache.Update takes tokens and heads for one another where there are as many of both: it guesses
// the layout by the sizes.
func TestKVCacheSwapsHeadsAndTokens(t *testing.T) {
	for _, c := range []struct {
		tokens int
		wrong  bool
		head0  []float32 // head 0 of each token
	}{
		{1, false, []float32{0, 0, 0, 0}},
		{3, false, []float32{0, 10, 20, 0}},
		{2, true, []float32{0, 10, 0, 0}},
	} {
		out := MustExecOnce(testbackend.Go(t), func(g *Graph) *Node { return updated(g, 2, 4, c.tokens) })
		var head0 []float32
		for _, x := range out.Value().([][][][]float32)[0][0] {
			head0 = append(head0, x[0])
		}
		if same := cmp.Equal(c.head0, head0); same == c.wrong {
			t.Errorf("2 heads, %d tokens: head 0 is %v; by the tokens %v; the fault was there: %v", c.tokens, head0, c.head0, c.wrong)
		}
	}
}

// kvcache.Update writes a prompt token by token, unrolled: the graph grows with the prompt, and so
// does the time to compile it.
func TestKVCacheUnrollsPrompts(t *testing.T) {
	nodes := func(tokens int) (n int) {
		MustExecOnce(testbackend.Go(t), func(g *Graph) *Node {
			x := updated(g, 3, 64, tokens)
			n = len(g.Nodes())
			return x
		})
		return n
	}
	if short, long := nodes(10), nodes(50); long-short < 40*4 {
		t.Errorf("%d nodes for 10 tokens, %d for 50: mended", short, long)
	}
}

// A rotary embedding takes one list of positions for all rows, so rows cannot be padded on the
// left.
func TestRoPEOfRows(t *testing.T) {
	exec, err := NewExec(testbackend.Go(t), func(x, positions *Node) *Node {
		x, _ = pos.NewRoPE(10000).EncodeQK(x, x, positions, 1)
		return x
	})
	if err != nil {
		t.Fatal(err)
	}
	x := [][][][]float32{{{{1, 0}}, {{1, 0}}, {{1, 0}}}, {{{1, 0}}, {{1, 0}}, {{1, 0}}}} // [2 rows, 3 tokens, 1 head, D = 2]
	out, err := exec.Call(x, [][]int32{{0, 1, 2}, {0, 0, 1}})
	if err == nil {
		t.Errorf("positions for each row worked: mended (%v)", out[0].Value())
	}
	t.Logf("as expected: %.200v", err)
}

// A layer inside of graph.While: its variables become parameters of the closure, of which the loop
// knows nothing.
func TestVariablesInWhile(t *testing.T) {
	exec, err := model.NewExec(testbackend.XLA(t), model.NewStore(), func(scope *model.Scope, x *Node) *Node {
		g := x.Graph()
		state := func(g *Graph) (i, y *Node) {
			return Parameter(g, g.UniqueName("i"), shapes.Make(dtypes.Int32)), Parameter(g, g.UniqueName("y"), x.Shape())
		}
		cond := NewClosure(g, func(g *Graph) []*Node {
			i, _ := state(g)
			return []*Node{LessThan(i, Const(g, int32(3)))}
		})
		body := NewClosure(g, func(g *Graph) []*Node {
			i, y := state(g)
			return []*Node{Add(i, Const(g, int32(1))), layers.Dense(scope, y, false, 2)}
		})
		return While(cond, body, Const(g, int32(0)), x)[1]
	})
	if err == nil {
		_, err = exec.Call([][]float32{{1, 2}})
	}
	if err == nil {
		t.Fatal("a layer in a loop worked: mended, kvq.Loop can be simpler")
	}
	if !strings.Contains(fmt.Sprint(err), "While") {
		t.Errorf("%v, the fault was of the While", err)
	}
}
