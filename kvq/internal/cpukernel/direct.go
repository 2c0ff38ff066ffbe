//go:build linux && cgo

package cpukernel

// #cgo CFLAGS: -O2 -g0
// #cgo LDFLAGS: -lm
// #include <stdlib.h>
// #include "attend.h"
import "C"

import (
	"unsafe"

	"github.com/gomlx/compute/dtypes"
	"github.com/kvqbook/kvqbook/kvq/internal/codes"
	"github.com/kvqbook/kvqbook/kvq/internal/kernel"
)

// The function called from Go, without XLA: for tests and benchmarks, whose files cannot have C.

// memory is where the arrays of a call are; not Go's memory. What there is not is nil.
type memory struct {
	query, position, used, codeIndex    unsafe.Pointer
	exactIndex, exactKeys, exactValues  unsafe.Pointer
	slopes                              unsafe.Pointer
	keyCodes, keyScales, keyZeros       unsafe.Pointer
	keyTokens                           unsafe.Pointer
	valueCodes, valueScales, valueZeros unsafe.Pointer
	out                                 unsafe.Pointer
}

// direct is a call that can be done again and again.
type direct struct {
	a       *C.kvq_attention
	scratch unsafe.Pointer
	pieces  int
}

func newDirect(s kernel.Shape, m memory) direct {
	a := (*C.kvq_attention)(C.calloc(1, C.sizeof_kvq_attention))
	a.rows, a.heads, a.queries = C.int32_t(s.Batch), C.int32_t(s.Heads), C.int32_t(s.Queries)
	a.blocks, a.exact, a.sliding_window = C.int32_t(s.Blocks), C.int32_t(s.Exact), C.int32_t(s.SlidingWindow)
	a.query_type, a.cache_type = C.int32_t(floatType(s.QueryType)), C.int32_t(floatType(s.CacheType))
	a.scale, a.soft_cap = C.float(s.Scores.Scale), C.float(s.Scores.SoftCap)
	a.query, a.position, a.used, a.code_index = m.query, (*C.int32_t)(m.position), (*C.int32_t)(m.used), (*C.int32_t)(m.codeIndex)
	a.exact_index, a.exact_keys, a.exact_values = (*C.int32_t)(m.exactIndex), m.exactKeys, m.exactValues
	a.slopes, a.out = (*C.float)(m.slopes), (*C.float)(m.out)
	a.key = codesOf(s.Key, s.CacheType, m.keyCodes, m.keyScales, m.keyZeros, m.keyTokens)
	a.value = codesOf(s.Value, s.CacheType, m.valueCodes, m.valueScales, m.valueZeros, nil)
	var pieces, bytes C.int64_t
	C.kvq_attend_plan(a, &pieces, &bytes)
	return direct{a, C.malloc(C.size_t(bytes)), int(pieces)}
}

func codesOf(f codes.Format, cache dtypes.DType, words, scales, zeros, tokens unsafe.Pointer) C.kvq_codes {
	l, planes := f.Words(), f.Planes()
	c := C.kvq_codes{
		bits: C.int32_t(f.Bits), planes: C.int32_t(len(planes)), word_bits: C.int32_t(l.Bits),
		parts: C.int32_t(l.Parts), rows: C.int32_t(l.Rows), words_of_part: C.int32_t(f.WordsOfPart()),
		group: C.int32_t(f.Group), groups: C.int32_t(f.Groups()), dim: C.int32_t(f.HeadDim),
		per_channel: C.int32_t(flag(f.PerChannel)), rotate: C.int32_t(flag(f.Rotate)),
		scale_type: C.int32_t(scaleType(f.Spec.Scales.Storage(cache))),
		codes:      words, scales: scales, zeros: zeros, tokens: (*C.uint8_t)(tokens),
	}
	for i, p := range planes {
		c.width[i] = C.int32_t(p.Width)
	}
	return c
}

// piece does piece i of the call; merge, after all of them, writes the output.
func (d direct) piece(i int) { C.kvq_attend_piece(d.a, C.int64_t(i), d.scratch) }
func (d direct) merge()      { C.kvq_attend_merge(d.a, d.scratch) }

func (d direct) free() {
	C.free(d.scratch)
	C.free(unsafe.Pointer(d.a))
}

// useVectors has calls use these vectors at most (0: those of plain C, 1: AVX2, 2: AVX-512), and
// says which they use.
func useVectors(most int) int { return int(C.kvq_attend_vectors(C.int(most))) }
