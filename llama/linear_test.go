package llama

import (
	"slices"
	"testing"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/internal/testbackend"
)

// A product that writes 16-bit numbers sums in float32: in float16 a sum of ones ends at 2,048, in
// bfloat16 at 256.
func TestProductsSumInFloat32OnCUDA(t *testing.T) {
	backend := testbackend.CUDA(t)
	for _, dtype := range []dtypes.DType{dtypes.Float16, dtypes.BFloat16} {
		for _, rows := range []int{roundingRows, 2048} {
			const in, out = 8192, 256
			ones := func(rows int) *tensors.Tensor {
				return tensors.FromFlatDataAndDimensions(slices.Repeat([]float32{1}, rows*in), rows, in)
			}
			exec := MustNewExec(backend, func(x, weight *Node) *Node {
				x, weight = ConvertDType(x, dtype), ConvertDType(weight, dtype)
				if !roundsItself(x) {
					t.Errorf("%s, %d rows: the product does not write 16-bit numbers", dtype, rows)
				}
				return ConvertDType(linear(x, matrix{plain: weight}), dtypes.Float32)
			})
			got := tensors.MustCopyFlatData[float32](exec.MustCall(ones(rows), ones(out))[0])
			exec.Finalize()
			if len(got) != rows*out {
				t.Fatalf("%d numbers, want %d", len(got), rows*out)
			}
			for _, x := range got {
				if x != in {
					t.Fatalf("%s, %d rows: a sum of %d ones is %v", dtype, rows, in, x)
				}
			}
		}
	}
}
