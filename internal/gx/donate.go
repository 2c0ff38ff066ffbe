package gx

import (
	"reflect"

	"github.com/gomlx/gomlx/core/graph"
)

// Reuse lets XLA write the first outputs of the graph under construction over these parameters, each of its output's
// shape. A buffer that is then donated to a call ([graph.DonateTensorBuffer]) becomes the output's; one that is not is
// copied, as without Reuse. It is for state that goes from call to call.
//
// PJRT frees or reuses a donated buffer only where the program says which output takes its place: StableHLO's
// attribute tf.aliasing_output on the parameter. go-xla v0.4.13 can write it (stablehlo.Value.Attributes), but neither
// its compute backend nor GoMLX v0.28.16 offers it, so donating has no effect there. The attribute is set through
// reflection; where a field is not found (another backend, a later GoMLX), nothing is set, every call copies its state,
// and TestReuse tells. It reports whether all were set.
func Reuse(parameters []*graph.Node) bool {
	if len(parameters) == 0 {
		return true
	}
	inputs := mainInputs(parameters[0].Graph())
	for i, parameter := range parameters {
		at := int(parameter.GetParameterHandle())
		if at >= len(inputs) {
			return false
		}
		attributes := inputs[at].FieldByName("Attributes")
		if attributes.Kind() != reflect.Map || !attributes.CanSet() {
			return false
		}
		if attributes.IsNil() {
			attributes.Set(reflect.MakeMap(attributes.Type()))
		}
		attributes.SetMapIndex(reflect.ValueOf("tf.aliasing_output"), reflect.ValueOf(int32(i)))
	}
	return true
}

// mainInputs returns go-xla's parameters of the graph's main function, as settable structs (stablehlo.Value), in order;
// nil where they are not found.
func mainInputs(g *graph.Graph) []reflect.Value {
	builder := pointee(reflect.ValueOf(g).Elem().FieldByName("builder"))
	if builder.Kind() != reflect.Struct {
		return nil
	}
	main := pointee(builder.FieldByName("mainFn"))
	if main.Kind() != reflect.Struct {
		return nil
	}
	function := pointee(main.FieldByName("fn")) // stablehlo.Function
	if function.Kind() != reflect.Struct {
		return nil
	}
	inputs := function.FieldByName("Inputs")
	if inputs.Kind() != reflect.Slice {
		return nil
	}
	list := make([]reflect.Value, inputs.Len())
	for i := range list {
		if list[i] = pointee(inputs.Index(i)); list[i].Kind() != reflect.Struct {
			return nil
		}
	}
	return list
}
