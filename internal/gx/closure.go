package gx

import (
	"reflect"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/support/exceptions"

	"github.com/kvqbook/kvqbook/internal/private"
)

// NewClosure is graph.NewClosure with caches of its own: inside body every function of the graph
// package may be used, so that a model's layers need no change to run in a loop. It may be called
// inside of another closure, see closureOfCurrent. Values of the enclosing function may be used
// only as the graph package allows, in dots and dynamic slices. On a pure-Go backend whose loops
// may not end it panics, see [Check].
func NewClosure(g *graph.Graph, body func(g *graph.Graph) []*graph.Node) (closure *graph.Function) {
	if err := Check(g.Backend()); err != nil {
		exceptions.Panicf("%v", err)
	}
	undo := closureOfCurrent(g)
	defer undo()
	withOwnCaches(g, func() {
		closure = graph.NewClosure(g, func(g *graph.Graph) []*graph.Node {
			undo()
			defer closureOfCurrent(g)() // for the closures that the graph package makes: Sort, TopK
			return settle(g, body(g))
		})
	})
	return closure
}

// closureOfCurrent makes the next graph.NewClosure of g a closure of g's current function, and
// returns what undoes that.
//
// GoMLX v0.28.16 (core/graph/function.go, NewClosureWithSharding) makes every closure a closure of
// the main function, and go-xla v0.4.13 (compute/xla/function.go, While) refuses a closure that is
// not one of the current function: a While inside of a While cannot be built. So the builder's main
// function is exchanged for as long as the closure is being made.
//
// The pure-Go backend of compute v0.1.14 refuses likewise (internal/gobackend/closure.go,
// ValidateClosure).
func closureOfCurrent(g *graph.Graph) (undo func()) {
	current, kind := g.CurrentFunc(), inspected(g.Backend())
	field := private.BuilderMain
	if kind.pureGo {
		field = private.GoBuilderMain
	}
	if !(kind.xla || kind.pureGo) || current == nil || current.IsMain() {
		return func() {}
	}
	main := field.Of(private.GraphBuilder.Of(g))
	old := reflect.ValueOf(main.Interface())
	main.Set(private.FunctionBackend.Of(current).Elem())
	return func() { main.Set(old) }
}
