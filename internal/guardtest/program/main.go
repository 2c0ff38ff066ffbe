// Command program is what package guardtest builds with other modules: it says whether caches are
// supported and runs a first graph with one, and prints the errors, a line each.
package main

import (
	"fmt"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"

	"github.com/kvqbook/kvqbook/device"
	"github.com/kvqbook/kvqbook/internal/gpu"
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/kvq"
)

func main() {
	backend, err := device.Open(device.XLACPU)
	if err != nil {
		fmt.Println("open:", err)
		return
	}
	defer backend.Finalize()
	fmt.Println("supported:", kvq.Supported(backend))
	fmt.Println("platform:", gpu.Of(backend).Platform)
	plan, err := kvq.New(kvq.Tutorial(), kvq.Shape{Layers: 1, Batch: 1, KVHeads: 1, HeadDim: 64, Capacity: 256, DType: dtypes.Float32})
	if err != nil {
		fmt.Println("plan:", err)
		return
	}
	tokens := shapes.Make(dtypes.Float32, 1, 1, 200, 64)
	var built *graph.Graph
	exec, err := graph.NewExec(backend, func(start *graph.Node) []*graph.Node {
		built = start.Graph()
		cache := plan.Init(start)
		x := gx.Zeros(built, tokens)
		layer := cache.Layer(0)
		layer.Append(x, x)
		out := layer.Attend(x)
		cache.Advance()
		return append([]*graph.Node{out}, cache.Nodes()...)
	})
	if err != nil {
		fmt.Println("graph:", err)
		return
	}
	defer exec.Finalize()
	_, err = exec.Call([]int32{0})
	fmt.Println("graph:", err)
	if err == nil {
		_, err = gx.CompiledMemory(built)
		fmt.Println("figures:", err)
	}
}
