package gx

import (
	"reflect"

	"github.com/gomlx/gomlx/core/graph"

	"github.com/kvqbook/kvqbook/internal/private"
)

// withOwnCaches runs build while the graph and its XLA builder have empty caches of constants and
// reductions, and gives them their old ones back afterwards. What build makes is then not handed to
// other functions, nor the other way around.
func withOwnCaches(g *graph.Graph, build func()) {
	for _, cache := range caches(g) {
		old := reflect.ValueOf(cache.Interface())
		cache.Set(reflect.MakeMap(cache.Type()))
		defer cache.Set(old)
	}
	build()
}

// caches returns the maps that GoMLX v0.28.16 (core/graph/graph.go) and go-xla v0.4.13
// (compute/xla/builder.go) keep per graph, as values that can be set.
func caches(g *graph.Graph) []reflect.Value {
	xla := onXLA(g)
	found := []reflect.Value{private.GraphScalars.Of(g), private.GraphTensors.Of(g)}
	if xla {
		builder := private.GraphBuilder.Of(g)
		found = append(found, private.BuilderReductions.Of(builder), private.BuilderArgMinMax.Of(builder), private.BuilderSelections.Of(builder))
	}
	return found
}
