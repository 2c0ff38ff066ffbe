package gx

import (
	"reflect"

	"github.com/gomlx/gomlx/core/graph"
)

// Compiled is what a compiled graph needs of the device's memory, in XLA's own figures (PJRT's CompiledMemoryStats), in
// bytes.
type Compiled struct {
	Inputs    int64 `json:"inputs"`    // parameters
	Outputs   int64 `json:"outputs"`   // results, those that take a parameter's place included
	Reused    int64 `json:"reused"`    // of the outputs, what takes a donated parameter's place
	Temporary int64 `json:"temporary"` // everything in between, at its largest
	Code      int64 `json:"code"`      // the program itself
}

// CompiledMemory returns XLA's figures for a compiled graph, and false where the backend has none. go-xla v0.4.13 asks XLA
// for them and keeps them in a field (pjrt.LoadedExecutable.OnDeviceMemoryUsageStats) that its compute backend does not
// show, so this goes through reflection; TestCompiledMemory tells when it no longer finds them.
func CompiledMemory(g *graph.Graph) (Compiled, bool) {
	executable := pointee(reflect.ValueOf(g.Executable()))
	if executable.Kind() != reflect.Struct {
		return Compiled{}, false
	}
	loaded := pointee(executable.FieldByName("exec"))
	if loaded.Kind() != reflect.Struct {
		return Compiled{}, false
	}
	stats := loaded.FieldByName("OnDeviceMemoryUsageStats")
	if stats.Kind() != reflect.Struct {
		return Compiled{}, false
	}
	var c Compiled
	for name, to := range map[string]*int64{
		"Inputs": &c.Inputs, "Outputs": &c.Outputs, "Aliases": &c.Reused, "Temporary": &c.Temporary, "GeneratedCode": &c.Code,
	} {
		field := stats.FieldByName(name)
		if field.Kind() != reflect.Int64 {
			return Compiled{}, false
		}
		*to = field.Int()
	}
	return c, true
}
