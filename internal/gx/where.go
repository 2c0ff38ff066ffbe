package gx

import (
	"github.com/gomlx/gomlx/core/graph"

	"github.com/kvqbook/kvqbook/internal/gpu"
)

// OnGPU reports whether a graph is for a GPU: what XLA makes of a graph differs there, not what the
// graph computes.
func OnGPU(g *graph.Graph) bool { return gpu.Of(g.Backend()).GPU() }

// OnCUDA reports whether a graph is for a GPU of NVIDIA.
func OnCUDA(g *graph.Graph) bool { return gpu.Of(g.Backend()).CUDA() }
