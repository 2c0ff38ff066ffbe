package gx

import (
	"fmt"
	"strings"

	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"

	"github.com/kvqbook/kvqbook/internal/gpu"
	"github.com/kvqbook/kvqbook/internal/ttir"
)

// XLA's Triton compiles for GPUs of this compute capability and newer.
const TritonMajor, TritonMinor = 8, 0

// RunsTriton reports whether a graph can call kernels in Triton's language: it is for a CUDA device
// that is new enough, and not shared ([Sharing]).
func RunsTriton(g *graph.Graph) bool {
	d := gpu.Of(g.Backend())
	return d.CUDA() && d.Compute(TritonMajor, TritonMinor) && Sharing(g) == 1
}

// Triton calls a kernel on a grid of programs. warps of 32 threads run a program, stages is how
// many iterations of a loop are under way at once. XLA compiles kernels of equal text once.
//
// What XLA wants to know is the text of an MLIR dictionary (openxla/xla,
// xla/service/gpu/triton_call.cc).
func Triton(k *ttir.Kernel, warps, stages int, grid [2]int, inputs []*graph.Node, outputs ...shapes.Shape) []*graph.Node {
	quote := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace
	config := fmt.Sprintf(`{name = "%s", ir = "%s", num_stages = %d : i32, num_warps = %d : i32, `+
		`grid_x = %d : i32, grid_y = %d : i32, grid_z = 1 : i32}`, k.Name, quote(k.Text()), stages, warps, grid[0], grid[1])
	return CustomCall(ttir.Target, config, inputs, outputs...)
}
