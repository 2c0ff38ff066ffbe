package gx

import (
	"fmt"
	"slices"
	"strings"

	"github.com/gomlx/go-xla/stablehlo"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/support/exceptions"

	"github.com/kvqbook/kvqbook/internal/private"
)

// Functions are parts of one graph that GoMLX builds once, however often they are called, and that
// XLA does not fuse with what is around them. The zero value is ready for use, in one graph; not
// safe for concurrent use.
//
// XLA's passes take time that grows faster than the number of operations, and its CPU compiler sees
// every operation of every call, since it puts the bodies of called functions in place of the
// calls. It leaves a call alone that carries the frontend attribute inlineable = "false"
// (xla/service/call_inliner.cc): then no loop spans two calls. A later pass (flatten-call-graph)
// makes a copy of the body for each call all the same; of equal loops the machine code is made
// once.
//
// GoMLX v0.28.16 can call functions, but neither it nor go-xla v0.4.13 offers the attribute: see
// keepCall.
type Functions struct {
	known map[functionKey]*graph.Function
}

type functionKey struct {
	key    any
	inputs string // dtypes and shapes
}

// CallsInPlace reports whether [Functions.Call] makes no function in a graph, because it is for a
// GPU, shared among devices ([Sharing]), or not XLA's.
func CallsInPlace(g *graph.Graph) bool { return OnGPU(g) || Sharing(g) > 1 || !onXLA(g) }

// Call returns what body makes of inputs. Calls with an equal key (comparable) and inputs of equal
// shapes share one function, made by the first of them: what else body depends on has to be in the
// key. body may use its arguments alone, no other nodes.
//
// On a GPU, and where devices share the graph, body is called in place: a GPU's compiler gains
// nothing, and Shardy is to see the whole graph. So it is on other backends than XLA: the
// pure-Go one of compute v0.1.14 fails in functions with "input 0 for node Where not computed yet".
func (f *Functions) Call(key any, inputs []*graph.Node, body func(inputs []*graph.Node) []*graph.Node) []*graph.Node {
	g := inputs[0].Graph()
	if CallsInPlace(g) {
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

// Alone is what body makes of inputs by itself, as [Functions] does. XLA's CPU compiler puts what
// is made of arrays into every loop that reads it, and would find it anew there for each number.
// Inputs that are nil stay nil.
func Alone(inputs []*graph.Node, body func(inputs []*graph.Node) []*graph.Node) []*graph.Node {
	var functions Functions
	some := slices.DeleteFunc(slices.Clone(inputs), func(x *graph.Node) bool { return x == nil })
	return functions.Call("alone", some, func(in []*graph.Node) []*graph.Node {
		all := make([]*graph.Node, len(inputs))
		for i, x := range inputs {
			if x != nil {
				all[i], in = in[0], in[1:]
			}
		}
		return body(all)
	})
}

// frontend is the attribute of a call that XLA's own passes read.
const frontend = "mhlo.frontend_attributes"

// notInlined is its value as go-xla writes it: it asks every attribute that it does not know for
// its text.
type notInlined struct{}

func (notInlined) ToStableHLO() string { return `{inlineable = "false"}` }

// keepCall marks the call whose result is given, in the function where it was written.
func keepCall(result *graph.Node) {
	call := statementOf(result)
	if call == nil {
		exceptions.Panicf("gx.Functions: %v", private.Error("a call is not in the program where it was written"))
	}
	keep(call)
}

func keep(call *stablehlo.Statement) {
	if call.Attributes == nil {
		call.Attributes = map[string]any{}
	}
	call.Attributes[frontend] = notInlined{}
}
