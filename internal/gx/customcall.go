package gx

import (
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/go-xla/stablehlo"
	xlashapes "github.com/gomlx/go-xla/types/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/support/exceptions"

	"github.com/kvqbook/kvqbook/internal/private"
)

// CustomCall is an operation that XLA knows by the name target: its inputs and outputs lie in
// memory row by row, and config is handed on as it is. It panics on a backend that is not go-xla's.
//
// go-xla v0.4.13 writes such calls (stablehlo.CustomCallV2), but neither its compute backend nor
// GoMLX v0.28.16 has a node for them. So nodes of the outputs' shapes are made as constants, and
// what stands for them in the program under construction is exchanged for the call's results; the
// constants are then used by nobody.
func CustomCall(target, config string, inputs []*graph.Node, outputs ...shapes.Shape) []*graph.Node {
	g := inputs[0].Graph()
	if !onXLA(g) {
		exceptions.Panicf("gx.CustomCall %q: %v", target, errNoXLA)
	}
	operands := make([]*stablehlo.Value, len(inputs))
	rowMajor := func(n int) [][]int { return make([][]int, n) }
	for i, x := range inputs {
		if x == nil {
			exceptions.Panicf("gx.CustomCall %q: input %d is nil", target, i)
		}
		operands[i] = *valueOf(x)
	}
	nodes, results := make([]*graph.Node, len(outputs)), make([]xlashapes.Shape, len(outputs))
	for i, s := range outputs {
		nodes[i] = Zeros(g, s)
		results[i] = xlashapes.Make(s.DType, s.Dimensions...)
	}
	values, err := stablehlo.CustomCallV2(target, config, operands, rowMajor(len(inputs)), results, rowMajor(len(outputs)))
	if err != nil {
		exceptions.Panicf("gx.CustomCall %q: %v", target, err)
	}
	for i, n := range nodes {
		*valueOf(n) = values[i]
	}
	return nodes
}

// typedFFI is the version of XLA's interface for functions that were registered with a plugin
// (API_VERSION_TYPED_FFI of xla/service/hlo.proto).
const typedFFI = int32(4)

// HostCall is a [CustomCall] of a function that was registered with XLA's CPU plugin by the name
// target. go-xla writes version 2 into the program, which is exchanged.
func HostCall(target string, inputs []*graph.Node, outputs ...shapes.Shape) []*graph.Node {
	nodes := CustomCall(target, "", inputs, outputs...)
	call := statementOf(nodes[0])
	if call == nil {
		exceptions.Panicf("gx.HostCall %q: %v", target, private.Error("a call is not in the program where it was written"))
	}
	call.Attributes["api_version"] = typedFFI
	return nodes
}
