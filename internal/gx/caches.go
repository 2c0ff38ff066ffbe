package gx

import (
	"reflect"
	"unsafe"

	"github.com/gomlx/gomlx/core/graph"
)

// withOwnCaches runs build while the graph and its XLA builder have empty caches of constants and reductions, and gives
// them their old ones back afterwards. What build makes is then not handed to other functions, nor the other way around.
//
// The caches are unexported fields, so this goes through reflection and unsafe. Where a field is not found (another
// backend, a later GoMLX), nothing is swapped: the graph then fails to build as it would without this package, and
// TestReductionsInSiblingClosures tells.
func withOwnCaches(g *graph.Graph, build func()) {
	for _, cache := range caches(g) {
		old := reflect.ValueOf(cache.Interface())
		cache.Set(reflect.MakeMap(cache.Type()))
		defer cache.Set(old)
	}
	build()
}

// caches returns the maps that GoMLX v0.28.16 and go-xla v0.4.13 keep per graph, as settable values:
// Graph.scalars and Graph.tensorConstants (core/graph/graph.go), Builder.cacheReductions, cacheArgMinMax and
// cacheSelections (compute/xla/builder.go).
func caches(g *graph.Graph) []reflect.Value {
	owner := reflect.ValueOf(g).Elem()
	found := append(mapField(nil, owner, "scalars"), mapField(nil, owner, "tensorConstants")...)
	builder := owner.FieldByName("builder")
	for builder.Kind() == reflect.Interface || builder.Kind() == reflect.Pointer {
		builder = builder.Elem()
	}
	if builder.Kind() != reflect.Struct {
		return found
	}
	for _, name := range []string{"cacheReductions", "cacheArgMinMax", "cacheSelections"} {
		found = mapField(found, builder, name)
	}
	return found
}

// mapField appends the named field of an addressable struct to found, if there is such a field and it is a map.
func mapField(found []reflect.Value, owner reflect.Value, name string) []reflect.Value {
	field := owner.FieldByName(name)
	if !field.IsValid() || field.Kind() != reflect.Map || !field.CanAddr() {
		return found
	}
	// NewAt drops the mark that forbids setting unexported fields.
	return append(found, reflect.NewAt(field.Type(), unsafe.Pointer(field.UnsafeAddr())).Elem())
}
