package compiled

// #include "table.h"
import "C"

import (
	"encoding/binary"
	"sync"
	"unsafe"
)

// figures are what XLA says of a compiled graph's memory (PJRT_Executable_GetCompiledMemoryStats).
// go-xla asks for them whenever a graph is compiled or loaded, and XLA works them out from the
// whole graph each time, which takes a tenth of loading it. So they are kept beside what was
// compiled.
type figures [C.KVQ_FIGURES]int64

// known are the figures of what was loaded, by PJRT's handles. They are valid as long as the
// handle is.
var known sync.Map // of unsafe.Pointer to figures

// ask returns XLA's figures for a PJRT_LoadedExecutable, false where it gives none.
func ask(loaded unsafe.Pointer) (f figures, ok bool) {
	return f, C.kvq_figures(loaded, (*C.int64_t)(&f[0])) != 0
}

// withFigures puts figures in front of what XLA wrote.
func withFigures(f figures, written []byte) []byte {
	content := make([]byte, 0, len(f)*8+len(written))
	for _, n := range f {
		content = binary.LittleEndian.AppendUint64(content, uint64(n))
	}
	return append(content, written...)
}

// figuresOf takes the figures off what is kept, false where there cannot be any.
func figuresOf(content []byte) (f figures, written []byte, ok bool) {
	if len(content) <= len(f)*8 {
		return f, nil, false
	}
	for i := range f {
		f[i] = int64(binary.LittleEndian.Uint64(content[8*i:]))
	}
	return f, content[len(f)*8:], true
}

// kvqFigures fills in the figures of a handle and returns 1, or 0 where they are not known.
//
//export kvqFigures
func kvqFigures(handle unsafe.Pointer, to *C.int64_t, most C.size_t) C.int {
	f, ok := known.Load(handle)
	if !ok {
		return 0
	}
	values := f.(figures)
	copy(unsafe.Slice((*int64)(to), int(most)), values[:])
	return 1
}

// kvqNamed says that PJRT made a second handle for the same graph.
//
//export kvqNamed
func kvqNamed(first, second unsafe.Pointer) {
	if f, ok := known.Load(first); ok {
		known.Store(second, f)
	}
}

// kvqGone says that a handle is about to be destroyed.
//
//export kvqGone
func kvqGone(handle unsafe.Pointer) { known.Delete(handle) }
