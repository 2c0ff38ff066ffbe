package compiled_test

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/internal/compiled"
	"github.com/kvqbook/kvqbook/internal/gx"
)

// manyFusions has what decode graphs have: a loop that writes in place, fusions with several
// results, sums, and words taken apart.
func manyFusions(state, x, words *Node) []*Node {
	g := x.Graph()
	low := ConvertDType(gx.AndScalar(words, 15), dtypes.Float32)
	high := ConvertDType(gx.ShiftRight(words, 4), dtypes.Float32)
	out := gx.Loop([]*Node{gx.Scalar(g, dtypes.Int32, 0), state, x, low, high},
		func(s []*Node) *Node { return LessThan(s[0], gx.Scalar(s[0].Graph(), dtypes.Int32, 5)) },
		func(s []*Node) []*Node {
			g := s[0].Graph()
			zero := gx.Scalar(g, dtypes.Int32, 0)
			row := Add(Mul(s[2], s[3]), Sqrt(s[4]))
			row = Div(row, gx.AddScalar(gx.BroadcastToDims(Reshape(ReduceSum(row, -1), row.Shape().Dim(0), 1), row.Shape().Dimensions...), 1))
			after := DynamicUpdateSlice(s[1], ExpandLeftToRank(row, 3), []*Node{s[0], zero, zero})
			return []*Node{gx.AddScalar(s[0], 1), after, row, s[3], s[4]}
		})
	most, least := ReduceMax(out[1], -1), ReduceMin(out[1], -1)
	return []*Node{out[1], out[2], most, least, Sub(most, least), Softmax(out[2])}
}

// A graph with all kinds of fusions is kept with its loop fusions emptied. Loaded, it gives the
// same bits, and says the same of its memory.
func keptGraph(t *testing.T, backend compute.Backend, dir string) {
	files := func() []string {
		list, err := filepath.Glob(filepath.Join(dir, "*.xla"))
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	before := files()
	var bits [2][][]float32
	var needs [2]gx.Compiled
	for i := range bits {
		loaded, kept := compiled.Counts()
		exec := MustNewExec(backend, manyFusions)
		defer exec.Finalize()
		g, err := exec.Compile(shapes.Make(dtypes.Float32, 5, 3, 64), shapes.Make(dtypes.Float32, 3, 64), shapes.Make(dtypes.Uint32, 3, 64))
		if err != nil {
			t.Fatal(err)
		}
		if needs[i], err = gx.CompiledMemory(g); err != nil {
			t.Error(err)
		}
		x, words := make([]float32, 3*64), make([]uint32, 3*64)
		for j := range x {
			x[j], words[j] = float32(j%17)/7, uint32(j*j)
		}
		out := exec.MustCall(tensors.FromShape(shapes.Make(dtypes.Float32, 5, 3, 64)), tensors.FromFlatDataAndDimensions(x, 3, 64), tensors.FromFlatDataAndDimensions(words, 3, 64))
		for _, o := range out {
			bits[i] = append(bits[i], tensors.MustCopyFlatData[float32](o))
		}
		nowLoaded, nowKept := compiled.Counts()
		if (nowLoaded > loaded) != (i == 1) || (nowKept > kept) != (i == 0) {
			t.Errorf("time %d: %d loaded, %d kept", i+1, nowLoaded-loaded, nowKept-kept)
		}
	}
	if !slices.EqualFunc(bits[0], bits[1], slices.Equal) {
		t.Errorf("loaded, the graph gives\n%v, want\n%v", bits[1], bits[0])
	}
	if needs[0] != needs[1] {
		t.Errorf("loaded, the graph needs %+v, want %+v", needs[1], needs[0])
	}
	emptied := 0
	for _, name := range files() {
		if slices.Contains(before, name) {
			continue
		}
		emptied += compiled.Emptied(t, name)
	}
	if emptied == 0 {
		t.Error("no loop fusion was emptied: this plugin's XLA is another than the one that it was tried with (see slim.go)")
	}
}
