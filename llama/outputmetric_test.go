package llama

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/testbackend"
)

// Two heads of 2 channels, each read by two query heads, into an output of 1: the weights are 1 2 |
// 3 4 | 5 6 | 7 8, so the first head's sum is 1·1+3·3, 1·2+3·4, 2·2+4·4.
func TestOutputMetricByHand(t *testing.T) {
	out := MustNewExec(testbackend.XLA(t), func(w *Node) *Node {
		return outputMetric(matrix{plain: w}, 2, 2)
	}).MustExec([][]float32{{1, 2, 3, 4, 5, 6, 7, 8}})
	want := []float32{10, 14, 14, 20, 74, 86, 86, 100}
	for i, got := range tensors.MustCopyFlatData[float32](out[0]) {
		if got != want[i] {
			t.Errorf("element %d is %v, want %v", i, got, want[i])
		}
	}
}

// Of packed weights it is what the product with each unit vector gives.
func TestOutputMetricOfPacked(t *testing.T) {
	const groups, outs, heads, dim = 2, 6, 2, 16
	random := rand.New(rand.NewPCG(1, 2))
	for name, words := range map[string]int{"Q4": 4, "Q8": 8} {
		codes := make([]uint32, groups*words*outs)
		for i := range codes {
			codes[i] = random.Uint32()
		}
		scale, low := make([]float32, groups*outs), make([]float32, groups*outs)
		for i := range scale {
			scale[i], low[i] = random.Float32(), random.Float32()-0.5
		}
		out := MustNewExec(testbackend.XLA(t), func(codes, scale, low *Node) []*Node {
			w := matrix{codes: Reshape(codes, groups, words, outs), scale: Reshape(scale, groups, outs), out: []int{outs}}
			if name == "Q4" {
				w.min = Reshape(low, groups, outs)
			}
			square := shapes.Make(dtypes.Int32, groups*packedGroup, groups*packedGroup)
			units := ConvertDType(Equal(Iota(codes.Graph(), square, 0), Iota(codes.Graph(), square, 1)), dtypes.Float32)
			y := Reshape(linear32(units, w), heads, -1, dim, outs)
			want := gx.ReduceSum(Dot(y, y).General([]int{3}, []int{0, 1}, []int{3}, []int{0, 1}), 1)
			return []*Node{want, outputMetric(w, heads, dim)}
		}).MustExec(codes, scale, low)
		want, got := tensors.MustCopyFlatData[float32](out[0]), tensors.MustCopyFlatData[float32](out[1])
		for i := range want {
			if math.Abs(float64(got[i]-want[i])) > 1e-4*math.Abs(float64(want[i]))+1e-3 {
				t.Fatalf("%s: element %d is %v, want %v", name, i, got[i], want[i])
			}
		}
	}
}
