package gx

import (
	"slices"

	"github.com/gomlx/go-xla/stablehlo"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/support/exceptions"

	"github.com/kvqbook/kvqbook/internal/private"
)

// currentProgram is the function of go-xla's program that is being written.
func currentProgram(g *graph.Graph) *stablehlo.Function {
	function := private.FunctionBackend.Of(g.CurrentFunc())
	return private.FunctionProgram.Of(function).Interface().(*stablehlo.Function)
}

// valueOf is where a node of one output keeps its value in go-xla's program.
func valueOf(x *graph.Node) **stablehlo.Value {
	outputs := private.NodeOutputs.Of(x)
	if outputs.Len() == 0 {
		exceptions.Panicf("gx: a node without outputs: %s", x)
	}
	return private.NodeValue.Of(outputs.Index(0)).Addr().Interface().(**stablehlo.Value)
}

// statementOf is the statement of go-xla's program that makes a node of one output, among the
// functions that are being written; nil where none of them has it.
func statementOf(x *graph.Node) *stablehlo.Statement {
	value := *valueOf(x)
	for f := currentProgram(x.Graph()); f != nil; f = f.Parent {
		for _, statement := range slices.Backward(f.Statements) {
			if slices.Contains(statement.Outputs, value) {
				return statement
			}
		}
	}
	return nil
}
