//go:build linux && cgo

package device

import (
	"bytes"
	"os"

	"github.com/kvqbook/kvqbook/internal/compiled"
	"github.com/kvqbook/kvqbook/internal/ptx"
	"github.com/kvqbook/kvqbook/internal/ttir"
)

// pluginOfSetUp is the size of the CUDA plugin that set-up brings.
const pluginOfSetUp = 411465856

// sideBySide is the option by which kernels of a program that do not wait for one another run side
// by side, where the default is one after the other: a prompt whose keys are coded with feedback
// has many small ones. It is for programs with kernels of this library. They share less memory
// then, and a prompt in full precision, which gains nothing, takes nine times the temporaries
// (docs/bench-log.md). It is nil where the user has set the flag, and for other plugins than the
// set-up's: they may not know it.
func sideBySide(p plugin) *compiled.Option {
	const name = "xla_gpu_command_buffer_scheduling_mode"
	file, err := os.Stat(p.path)
	if err != nil || file.Size() != pluginOfSetUp || mayHaveFlag(os.Getenv("XLA_FLAGS"), name) {
		return nil
	}
	return &compiled.Option{Name: name, Value: "CONCURRENT", For: hasKernel}
}

// hasKernel reports whether a program calls a kernel in Triton's language or in PTX.
func hasKernel(program []byte) bool {
	return bytes.Contains(program, []byte(ttir.Target)) || bytes.Contains(program, []byte(ptx.Target))
}
