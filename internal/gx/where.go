package gx

import (
	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/graph"

	"github.com/kvqbook/kvqbook/internal/gpu"
)

// OnGPU reports whether a graph is for a GPU: what XLA makes of a graph differs there, not what the
// graph computes.
func OnGPU(g *graph.Graph) bool { return gpu.Of(g.Backend()).GPU() }

// OnCUDA reports whether a graph is for a GPU of NVIDIA.
func OnCUDA(g *graph.Graph) bool { return gpu.Of(g.Backend()).CUDA() }

// FusesAttention reports whether a backend takes cuDNN's fused attention. go-xla goes by the
// plugin's name (compute/xla/xla.go, IsCUDA), so it may say no where OnCUDA says yes: of a plugin
// that was opened by its path.
func FusesAttention(backend compute.Backend) bool {
	cuda, ok := backend.(interface{ IsCUDA() bool })
	return ok && cuda.IsCUDA()
}
