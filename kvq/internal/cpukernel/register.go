//go:build linux && cgo

package cpukernel

// #include "attend.h"
// #include "handler.h"
import "C"

import (
	"fmt"
	"unsafe"

	"github.com/gomlx/compute"
	"github.com/kvqbook/kvqbook/internal/pjrt"
)

// Lacks says why the graphs of a backend on a CPU cannot call the functions, in a few words; "":
// they can. Its first call for a plugin gives the plugin the functions.
func Lacks(backend compute.Backend) string {
	if lacks := C.kvq_attend_lacks(); lacks != nil {
		return C.GoString(lacks)
	}
	device, err := pjrt.Of(backend, 0)
	if err != nil {
		return "not XLA's plugin for a CPU"
	}
	for name, handler := range map[string]unsafe.Pointer{
		target: unsafe.Pointer(C.kvq_attend_handler), encodeTarget: unsafe.Pointer(C.kvq_encode_handler),
	} {
		if err := device.Register(name, handler); err != nil {
			return fmt.Sprintf("XLA's plugin does not take it: %v", err)
		}
	}
	return ""
}
