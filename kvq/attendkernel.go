package kvq

import (
	"fmt"
	"os"
	"strings"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/gx"
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
	if os.Getenv("KVQ_FORCE_CUDA") != "" {
		return true
	}
	return g.NumDevices() == 1 && strings.Contains(strings.ToLower(g.Backend().DeviceDescription(0)), "cuda")
}

// kernelOf is the kernel for a layer's attention in a graph, if there is one.
func (p *Plan) kernelOf(l layerPlan, g *Graph, queries int) (kernelShape, bool) {
	if p.noKernel || p.tiled || p.fused || os.Getenv(EnvAttention) == "graph" || !onCUDA(g) {
		return kernelShape{}, false
	}
	return p.kernelFor(l, queries)
}

// attendKernel is attendBlocks as one kernel. q [B, K, Q, D] float32, turned as the keys are.
func (c *quantizedCache) attendKernel(layer int, q *Node, k kernelShape) partial {
	b, kv, n, d := k.batch, k.heads, k.queries, k.dim
	inputs := append([]*Node{q, c.newIndex(), c.used, c.codeIndex}, c.layers[layer].key.nodes()...)
	inputs = append(inputs, c.layers[layer].value.nodes()...)
	column := shapes.Make(dtypes.Float32, k.splits, b, kv, n, 1)
	out := gx.CustomCall(tritonTarget, k.backendConfig(), inputs, column, column, shapes.Make(dtypes.Float32, k.splits, b, kv, n, d))
	parts := partial{out[0], out[1], out[2]}
	if k.splits == 1 {
		first := func(x *Node) *Node { return Reshape(x, dims(x)[1:]...) }
		return partial{first(parts.max), first(parts.sum), first(parts.out)}
	}
	return parts.mergeFirst()
}

// tritonTarget is XLA's name for a kernel in Triton's language.
const tritonTarget = "__gpu$xla.gpu.triton"

// backendConfig is what XLA wants to know of a kernel, as text of an MLIR dictionary (openxla/xla, xla/service/gpu/triton_call.cc). XLA compiles
// kernels of equal text once.
func (k kernelShape) backendConfig() string {
	t := k.build()
	quote := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace
	return fmt.Sprintf(`{name = "%s", ir = "%s", num_stages = 1 : i32, num_warps = %d : i32, grid_x = %d : i32, grid_y = %d : i32, grid_z = 1 : i32}`,
		t.Name, quote(t.Text()), k.warps, k.splits, k.batch*k.heads)
}
