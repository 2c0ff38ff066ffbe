package gx

import (
	"reflect"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/pkg/errors"

	"github.com/kvqbook/kvqbook/internal/private"
)

// Compiled is what a compiled graph needs of the device's memory, in XLA's own figures (PJRT's
// CompiledMemoryStats), in bytes.
type Compiled struct {
	Inputs    int64 `json:"inputs"`    // parameters
	Outputs   int64 `json:"outputs"`   // results, those that take a parameter's place included
	Reused    int64 `json:"reused"`    // of the outputs, what takes a donated parameter's place
	Temporary int64 `json:"temporary"` // everything in between, at its largest
	Code      int64 `json:"code"`      // the program itself
}

// CompiledMemory returns XLA's figures for a compiled graph, or why there are none: the backend is
// not go-xla's, the plugin gives none, or a field is not there. go-xla v0.4.13 asks XLA for them
// and keeps them in a field that its compute backend does not show.
//
// The type of a compiled graph is known only when there is one, so [Check] does not look at it.
func CompiledMemory(g *graph.Graph) (c Compiled, err error) {
	if packageOf(g.Executable()) != goXLA {
		return c, errNoXLA
	}
	if err := private.Check(private.Types{"xla.Executable": reflect.TypeOf(g.Executable())}); err != nil {
		return c, err
	}
	stats := private.LoadedStats.Of(private.ExecutableLoaded.Of(g.Executable()))
	c = Compiled{
		Inputs:    private.StatsInputs.Of(stats).Int(),
		Outputs:   private.StatsOutputs.Of(stats).Int(),
		Reused:    private.StatsAliases.Of(stats).Int(),
		Temporary: private.StatsTemporary.Of(stats).Int(),
		Code:      private.StatsCode.Of(stats).Int(),
	}
	if c == (Compiled{}) {
		return c, errors.New("XLA gives no figures")
	}
	return c, nil
}
