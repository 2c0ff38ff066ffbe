package gx

import (
	"github.com/gomlx/compute"
	"github.com/gomlx/go-xla/stablehlo"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/support/exceptions"
)

// Reuse lets XLA write the first outputs of the graph under construction over these parameters of
// its main function, each of its output's shape. A buffer that is then donated to a call
// ([graph.DonateTensorBuffer]) becomes the output's; one that is not is copied, as without Reuse.
// It is for state that goes from call to call.
//
// PJRT frees or reuses a donated buffer only where the program says which output takes its place:
// StableHLO's attribute tf.aliasing_output on the parameter. go-xla v0.4.13 can write it, but
// neither its compute backend nor GoMLX v0.28.16 offers it, so donating has no effect there.
//
// It panics where that cannot be said to XLA (see [Check]): a cache would be copied by every call,
// and held twice. On another backend than go-xla's it does nothing: what a donated buffer becomes
// is up to that backend.
func Reuse(parameters []*graph.Node) {
	if len(parameters) == 0 || !onXLA(parameters[0].Graph()) {
		return
	}
	g := parameters[0].Graph()
	if !g.CurrentFunc().IsMain() {
		exceptions.Panicf("gx.Reuse: called while a function is built, wanted the main one")
	}
	inputs := currentProgram(g).Inputs
	for i, parameter := range parameters {
		at := int(parameter.GetParameterHandle())
		if at < 0 || at >= len(inputs) {
			exceptions.Panicf("gx.Reuse: parameter %d, and the program has %d", at, len(inputs))
		}
		alias(inputs[at], i)
	}
}

// aliasing is the attribute of a parameter that names the output that takes its place.
const aliasing = "tf.aliasing_output"

func alias(parameter *stablehlo.Value, output int) {
	if parameter.Attributes == nil {
		parameter.Attributes = map[string]any{}
	}
	parameter.Attributes[aliasing] = int32(output)
}

// Discard frees buffers that were donated to a call which failed, nil ones aside. Without it they
// wait for Go's garbage collector, that does not know how much of a device they hold.
//
// On another backend than go-xla's it does nothing: a buffer may be another call's by then, and its
// memory is Go's.
func Discard(backend compute.Backend, buffers ...compute.Buffer) {
	if !inspected(backend).xla {
		return
	}
	for _, b := range buffers {
		if b != nil {
			_ = b.Finalize() // only fails when the backend is gone, and all buffers with it
		}
	}
}
