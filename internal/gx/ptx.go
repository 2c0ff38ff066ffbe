package gx

import (
	"fmt"
	"strings"

	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"

	"github.com/kvqbook/kvqbook/internal/ptx"
)

// PTX calls a kernel on a grid of programs, where [RunsTriton] does.
//
// What XLA wants to know is the text of an MLIR dictionary (openxla/xla,
// xla/service/gpu/kernel_call.cc). The GPU's driver compiles the kernel when the program is loaded.
func PTX(k *ptx.Kernel, grid [2]int, inputs []*graph.Node, outputs ...shapes.Shape) []*graph.Node {
	quote := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace
	config := fmt.Sprintf(`{name = "%s", kernel_type = "ptx", kernel_data = "%s", `+
		`grid_x = %d : i32, grid_y = %d : i32, grid_z = 1 : i32, `+
		`block_x = %d : i32, block_y = 1 : i32, block_z = 1 : i32, shared_mem_bytes = 0 : i32}`,
		k.Name, quote(k.Text()), grid[0], grid[1], ptx.Lanes)
	return CustomCall(ptx.Target, config, inputs, outputs...)
}
