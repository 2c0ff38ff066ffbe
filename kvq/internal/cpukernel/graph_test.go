//go:build linux && cgo

package cpukernel

import (
	"slices"
	"testing"
	"unsafe"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/testbackend"
	"github.com/kvqbook/kvqbook/internal/testlane"
	"github.com/kvqbook/kvqbook/kvq/internal/attend"
	"github.com/kvqbook/kvqbook/kvq/internal/codes"
)

// inputs are the arrays of a layer as tensors, in the order of byGraph's inputs.
func (l *layer) inputs() (list []any) {
	s := l.s
	add := func(shape shapes.Shape, at unsafe.Pointer) {
		t := tensors.FromShape(shape)
		t.MutableBytes(func(to []byte) { copy(to, unsafe.Slice((*byte)(at), len(to))) })
		list = append(list, t)
	}
	slots := s.Blocks * codes.BlockTokens
	add(shapes.Make(s.QueryType, s.Batch, s.Heads, s.Queries, s.Key.HeadDim), l.m.query)
	add(shapes.Make(dtypes.Int32, s.Batch, 1), l.m.position)
	add(shapes.Make(dtypes.Int32, s.Batch), l.m.used)
	add(shapes.Make(dtypes.Int32, s.Batch, slots), l.m.codeIndex)
	add(shapes.Make(dtypes.Int32, s.Batch, s.Exact), l.m.exactIndex)
	add(shapes.Make(s.CacheType, s.Batch, s.Heads, s.Exact, s.Key.HeadDim), l.m.exactKeys)
	add(shapes.Make(s.CacheType, s.Batch, s.Heads, s.Exact, s.Value.HeadDim), l.m.exactValues)
	of := func(f codes.Format, codesAt, scales, zeros, tokens unsafe.Pointer) {
		at := map[codes.Kind]unsafe.Pointer{codes.KindCodes: codesAt, codes.KindScales: scales, codes.KindZeros: zeros, codes.KindTokens: tokens}
		for _, a := range f.Arrays(s.Batch, s.Heads, slots, s.CacheType) {
			add(a.Shape, at[a.Kind])
		}
	}
	of(s.Key, l.m.keyCodes, l.m.keyScales, l.m.keyZeros, l.m.keyTokens)
	of(s.Value, l.m.valueCodes, l.m.valueScales, l.m.valueZeros, nil)
	return list
}

// byGraph is attention by graph operations over codes, and over sinks and window in float32.
func (l *layer) byGraph(t *testing.T) []float32 {
	s := l.s
	spec := func(f codes.Format) codes.Format {
		f.Spec.Scales = f.Spec.Scales.Storage(s.CacheType)
		return f
	}
	exec := MustNewExec(testbackend.XLA(t), func(in []*Node) *Node {
		q := gx.MulScalar(attend.Float32(in[0]), s.Scores.Scale)
		view := attend.View{Position: in[1], Window: s.SlidingWindow, Distances: len(s.Scores.Slopes) > 0}
		key, value := spec(s.Key), spec(s.Value)
		keys, rest := key.Take(in[7:])
		values, _ := value.Take(rest)
		coded := attend.Coded{
			Scores: s.Scores, Seen: view.Of(in[3]), Used: in[2], Key: key, Value: value, Keys: keys, Values: values,
			Length: gx.ReduceMax(in[1]), TileBlocks: s.Blocks, Functions: &gx.Functions{},
		}
		sum := coded.Attend(attend.Words, q)
		return sum.Merge(s.Scores.Exact(q, attend.Float32(in[5]), attend.Float32(in[6]), view.Of(in[4]))).Result()
	})
	defer exec.Finalize()
	return tensors.MustCopyFlatData[float32](exec.MustCall(l.inputs()...)[0])
}

// The function gives what graph operations give.
func TestAttendIsTheGraphs(t *testing.T) {
	caches := benchCaches()
	for i, name := range []string{"tutorial", "balanced", "smallest", "lowest"} {
		t.Run(name, func(t *testing.T) {
			if name != "tutorial" {
				testlane.Slow(t, "the tutorial's cache stands for all")
			}
			c := caches[i]
			s := plainShape(8, 40)
			s.Batch, s.Key, s.Value = 2, c.key(64), c.value(64)
			s.Scores.Scale = 0.125
			if name == "balanced" {
				s.Scores.SoftCap, s.Scores.Slopes, s.SlidingWindow = 3, []float64{0, 0.5, 0.25, 0.125, 1, 0.01}, 200
			}
			position := []int32{260, 90}
			l := newLayer(t, s, 6, []int32{256, 70}, position)
			graph, want := l.byGraph(t), []float64{}
			for _, x := range graph {
				want = append(want, float64(x))
			}
			withVectors(t, func(t *testing.T) {
				require(t, "graph operations", l.run(upwards(l.call.pieces)), want, 64, 2e-5)
			})
			require(t, "graph operations and the oracle", slices.Clone(graph), l.want(position), 64, 2e-5)
		})
	}
}
