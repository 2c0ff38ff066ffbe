//go:build linux && cgo

package cpukernel

// #include <stdlib.h>
// #include "encode.h"
import "C"

import (
	"unsafe"

	"github.com/gomlx/compute/dtypes"
)

// The function that codes called from Go, without XLA: for tests and benchmarks.

// encoded is where the arrays of a call are; not Go's memory. What there is not is nil.
type encoded struct {
	x, first, valid, factor      unsafe.Pointer
	codes, scales, zeros, tokens unsafe.Pointer
}

// directEncoding is a call that can be done again and again.
type directEncoding struct {
	e       *C.kvq_encoding
	pieces  int
	scratch int // bytes that a piece needs, from a multiple of 64 on
}

func newDirectEncoding(of encoding, m encoded) directEncoding {
	e := (*C.kvq_encoding)(C.calloc(1, C.sizeof_kvq_encoding))
	cuts, first, step := of.format.Spec.Cuts(of.format.Group)
	e.rows, e.heads, e.tokens, e.all = C.int32_t(of.rows), C.int32_t(of.heads), C.int32_t(of.tokens), C.int32_t(of.all)
	e.keys, e.cuts, e.first, e.step = C.int32_t(flag(of.format.Keys)), C.int32_t(cuts), C.float(first), C.float(step)
	e.x, e.from, e.valid, e.factor = (*C.float)(m.x), (*C.int32_t)(m.first), (*C.uint8_t)(m.valid), (*C.float)(m.factor)
	e.to = codesOf(of.format, dtypes.Float32, m.codes, m.scales, m.zeros, m.tokens)
	var pieces, scratch C.int64_t
	C.kvq_encode_plan(e, &pieces, &scratch)
	return directEncoding{e, int(pieces), int(scratch)}
}

func (d directEncoding) piece(i int, scratch unsafe.Pointer) {
	C.kvq_encode_piece(d.e, C.int64_t(i), scratch)
}

func (d directEncoding) free() { C.free(unsafe.Pointer(d.e)) }
