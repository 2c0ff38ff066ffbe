package gx

import (
	"reflect"

	"github.com/gomlx/gomlx/core/graph"

	"github.com/kvqbook/kvqbook/internal/private"
)

// closureOfCurrent makes the next graph.NewClosure of g a closure of g's current function, and
// returns what undoes that.
//
// GoMLX v0.28.16 (core/graph/function.go, NewClosureWithSharding) makes every closure a closure of
// the main function, and go-xla v0.4.13 (compute/xla/function.go, While) refuses a closure that is
// not one of the current function: a While inside of a While cannot be built. So the builder's main
// function is exchanged for as long as the closure is being made.
func closureOfCurrent(g *graph.Graph) (undo func()) {
	current := g.CurrentFunc()
	if !onXLA(g) || current == nil || current.IsMain() {
		return func() {}
	}
	main := private.BuilderMain.Of(private.GraphBuilder.Of(g))
	old := reflect.ValueOf(main.Interface())
	main.Set(private.FunctionBackend.Of(current).Elem())
	return func() { main.Set(old) }
}
