package kvq

import (
	"strings"

	"github.com/gomlx/compute"
	"github.com/pkg/errors"

	"github.com/kvqbook/kvqbook/internal/gx"
)

// needed are the operations that every cache is made of and that a backend may lack.
var needed = []compute.OpType{compute.OpTypeDynamicUpdateSlice, compute.OpTypeGather, compute.OpTypeBitcast}

// Supported returns nil if caches work on a backend, else why they do not, in one line.
//
// Caches run on XLA, and on GoMLX's pure-Go backend if that is opened as "go:ops_sequential": it
// needs no plugin and is far slower. Opened as "go" it may stop for good in a loop, so that is an
// error. Parts of GoMLX, go-xla and the pure-Go backend that are used are not public, so a program
// with other versions than the tested ones may lack them; the error then names both and says what
// to do. The first graph that needs them fails with the same line.
//
// Nothing is compiled, and only the first call in a process looks. Safe for concurrent use.
func Supported(backend compute.Backend) error {
	capabilities := backend.Capabilities()
	var missing []string
	for _, op := range needed {
		if !capabilities.Operations[op] {
			missing = append(missing, op.String())
		}
	}
	if !capabilities.Functions {
		missing = append(missing, "functions")
	}
	if len(missing) > 0 {
		return errors.Errorf("kvq: caches need XLA or GoMLX's pure-Go backend: backend %q has no %s", backend.Name(), strings.Join(missing, ", "))
	}
	return gx.Check(backend)
}
