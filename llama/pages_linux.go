package llama

import (
	"syscall"
	"unsafe"
)

// hugePages asks Linux for pages of 2 MB below memory that is about to be filled: with pages of 4
// KB, having them cleared and mapped one by one takes as long as reading the file. It is a hint,
// without which all works.
func hugePages(memory []byte) {
	const page, advice = 2 << 20, 14 // MADV_HUGEPAGE
	address := uintptr(unsafe.Pointer(unsafe.SliceData(memory)))
	skip := int(-address & (page - 1))
	if whole := (len(memory) - skip) &^ (page - 1); whole > 0 {
		_ = syscall.Madvise(memory[skip:skip+whole], advice)
	}
}
