package kvq

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/ttir"
)

// EnvAttention is the environment variable that, set to "graph", has plans made from then on attend by graph operations on every device.
const EnvAttention = "KVQ_ATTENTION"

// WithoutKernel returns a plan that attends by graph operations where p would use a kernel of its own: to compare the two.
func (p *Plan) WithoutKernel() *Plan {
	q := *p
	q.noKernel = true
	return &q
}

// onCUDA tells whether a graph is for one device of CUDA: what XLA compiles kernels for, and where it need not cut them into pieces.
func onCUDA(g *Graph) bool {
	return g.NumDevices() == 1 && gx.OnCUDA(g)
}

// kernelOf is the kernel for a layer's attention of queries [B, H, 1, D], if there is one.
func (p *Plan) kernelOf(l layerPlan, queries *Node) (kernelShape, bool) {
	if p.noKernel || p.tiled || p.fused || os.Getenv(EnvAttention) == "graph" || !onCUDA(queries.Graph()) {
		return kernelShape{}, false
	}
	return p.kernelFor(l, dims(queries)[1]/p.shape.KVHeads, queries.DType())
}

// kernelInputs are what the kernel reads, in its order. q [B, K, Q, D], as it came.
func (c *quantizedCache) kernelInputs(layer int, q *Node, k kernelShape) []*Node {
	s := c.layers[layer]
	inputs := []*Node{q}
	if k.key.Rotate {
		inputs = append(inputs, Rotate(gx.MulScalar(matchFloat32(q), k.scoreScale())))
	}
	inputs = append(append(inputs, c.newIndex(), c.used, c.codeIndex), s.key.Nodes()...)
	return append(append(inputs, s.value.Nodes()...), c.exactIndex, s.exactKeys, s.exactValues)
}

// attendKernel is attention of single tokens over all that a layer holds, as kernels. q [B, K, Q, D], as it came.
func (c *quantizedCache) attendKernel(layer int, q *Node, k kernelShape) partial {
	call := func(t *ttir.Kernel, warps, x, y int, inputs []*Node, outputs int, first ...int) []*Node {
		shape := func(last int) shapes.Shape {
			return shapes.Make(dtypes.Float32, append(slices.Clone(first), k.batch, k.heads, k.queries, last)...)
		}
		results := append([]shapes.Shape{shape(1), shape(1)}, slices.Repeat([]shapes.Shape{shape(k.dim)}, outputs)...)
		return gx.CustomCall(tritonTarget, backendConfig(t, warps, x, y), inputs, results...)
	}
	parts := call(k.build(), k.warps, k.batch*k.heads*k.queries/k.together, k.programs(), c.kernelInputs(layer, q, k), 1, k.programs())
	out := call(k.buildMerge(), mergeWarps, k.batch*k.heads*k.queries, k.dim/mergeChannels, parts, k.outputs())
	sum := partial{out[0], out[1], out[2]}
	if k.value.Rotate {
		sum.out = Add(Rotate(sum.out), out[3])
	}
	return sum
}

const mergeWarps = 4

// tritonTarget is XLA's name for a kernel in Triton's language.
const tritonTarget = "__gpu$xla.gpu.triton"

// backendConfig is what XLA wants to know of a kernel and its grid, as text of an MLIR dictionary (openxla/xla,
// xla/service/gpu/triton_call.cc). XLA compiles kernels of equal text once.
func backendConfig(t *ttir.Kernel, warps, x, y int) string {
	quote := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace
	return fmt.Sprintf(`{name = "%s", ir = "%s", num_stages = %d : i32, num_warps = %d : i32, grid_x = %d : i32, grid_y = %d : i32, grid_z = 1 : i32}`,
		t.Name, quote(t.Text()), kernelStages, warps, x, y)
}
