package gx

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/gomlx/gomlx/core/graph"

	"github.com/kvqbook/kvqbook/internal/gpu"
)

// Functions are parts of one graph that GoMLX builds once, however often they are called, and that XLA does not fuse with what is around them. The zero value is ready for use, in one graph; not safe for
// concurrent use.
//
// XLA's passes take time that grows faster than the number of operations, and its CPU compiler sees every operation of every call, since it
// puts the bodies of called functions in place of the calls. It leaves a call alone that carries the frontend attribute inlineable = "false"
// (xla/service/call_inliner.cc): then no loop spans two calls. A later pass (flatten-call-graph) makes a copy of the body for each call all the same; of
// equal loops the machine code is made once.
//
// GoMLX v0.28.16 can call functions, but neither it nor go-xla v0.4.13 offers the attribute, so it is set through reflection; where a field is not found
// the call has none, XLA puts the body in its place, and TestCallStaysACall tells.
type Functions struct {
	known map[functionKey]*graph.Function
}

type functionKey struct {
	key    any
	inputs string // dtypes and shapes
}

// Call gives what body makes of inputs. Calls with an equal key (comparable) and inputs of equal shapes share one function, made by the first of them: what
// else body depends on has to be in the key. body may use its arguments alone, no other nodes.
//
// On a GPU, and where a graph runs on several devices, body is called in place: a GPU's compiler gains nothing, and Shardy
// is to see the whole graph.
func (f *Functions) Call(key any, inputs []*graph.Node, body func(inputs []*graph.Node) []*graph.Node) []*graph.Node {
	g := inputs[0].Graph()
	if OnGPU(g) || g.NumDevices() > 1 {
		return body(inputs)
	}
	var signature strings.Builder
	for _, in := range inputs {
		signature.WriteString(in.Shape().String())
	}
	k := functionKey{key, signature.String()}
	function := f.known[k]
	if function == nil {
		withOwnCaches(g, func() {
			function = graph.NewFunction(g, g.UniqueName("part"), func(g *graph.Graph) []*graph.Node {
				parameters := make([]*graph.Node, len(inputs))
				for i, in := range inputs {
					parameters[i] = graph.Parameter(g, fmt.Sprintf("in%d", i), in.Shape())
				}
				return body(parameters)
			})
		})
		if f.known == nil {
			f.known = map[functionKey]*graph.Function{}
		}
		f.known[k] = function
	}
	out := function.Call(inputs...)
	keepCall(out[0])
	return out
}

// OnGPU reports whether a graph is for a GPU: what XLA makes of a graph differs there, not what the
// graph computes.
func OnGPU(g *graph.Graph) bool { return gpu.Of(g.Backend()).GPU() }

// OnCUDA reports whether a graph is for a GPU of NVIDIA.
func OnCUDA(g *graph.Graph) bool { return gpu.Of(g.Backend()).CUDA() }

// notInlined is the attribute as go-xla writes it: it asks every attribute that it does not know for its text.
type notInlined struct{}

func (notInlined) ToStableHLO() string { return `{inlineable = "false"}` }

// keepCall marks the call whose result is given: the field stmt (stablehlo.Statement) of its value.
func keepCall(result *graph.Node) {
	outputs := reflect.ValueOf(result).Elem().FieldByName("outputOps")
	if outputs.Kind() != reflect.Slice || outputs.Len() == 0 {
		return
	}
	node := pointee(outputs.Index(0))
	if node.Kind() != reflect.Struct {
		return
	}
	value := pointee(node.FieldByName("value"))
	if value.Kind() != reflect.Struct {
		return
	}
	statement := pointee(value.FieldByName("stmt"))
	if statement.Kind() != reflect.Struct {
		return
	}
	attributes := statement.FieldByName("Attributes")
	if attributes.Kind() != reflect.Map || attributes.IsNil() || !attributes.CanSet() {
		return
	}
	attributes.SetMapIndex(reflect.ValueOf("mhlo.frontend_attributes"), reflect.ValueOf(notInlined{}))
}
