package gx

import (
	"reflect"
	"unsafe"

	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/go-xla/stablehlo"
	xlashapes "github.com/gomlx/go-xla/types/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/support/exceptions"
)

// CustomCall is an operation that XLA knows by the name target: its inputs and outputs lie in memory row by row, and config is handed on as it is.
//
// go-xla v0.4.13 writes such calls (stablehlo.CustomCallV2), but neither its compute backend nor GoMLX v0.28.16 has a node for them. So nodes of the
// outputs' shapes are made as constants, and what stands for them in the program under construction is exchanged for the call's results; the
// constants are then used by nobody. This goes through reflection; it panics where a field is not found (another backend, a later GoMLX), and
// TestCustomCall tells.
func CustomCall(target, config string, inputs []*graph.Node, outputs ...shapes.Shape) []*graph.Node {
	g := inputs[0].Graph()
	operands := make([]*stablehlo.Value, len(inputs))
	rowMajor := func(n int) [][]int { return make([][]int, n) }
	for i, x := range inputs {
		operands[i] = stableHLO(x).Interface().(*stablehlo.Value)
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
		stableHLO(n).Set(reflect.ValueOf(values[i]))
	}
	return nodes
}

// stableHLO is what stands for a node in go-xla's program: the field of type *stablehlo.Value, settable.
func stableHLO(x *graph.Node) reflect.Value {
	ops := pointee(reflect.ValueOf(x).Elem().FieldByName("outputOps"))
	if ops.Kind() == reflect.Slice && ops.Len() == 1 {
		if node := pointee(ops.Index(0)); node.Kind() == reflect.Struct {
			if field := node.FieldByName("value"); field.Kind() == reflect.Pointer && field.CanAddr() {
				field = settable(field)
				if _, ok := field.Interface().(*stablehlo.Value); ok {
					return field
				}
			}
		}
	}
	exceptions.Panicf("gx.CustomCall: a node of backend %s is not what go-xla v0.4.13 makes", x.Graph().Backend().Name())
	return reflect.Value{}
}

// settable drops the mark that forbids reading and setting unexported fields.
func settable(field reflect.Value) reflect.Value {
	return reflect.NewAt(field.Type(), unsafe.Pointer(field.UnsafeAddr())).Elem()
}
