//go:build linux && cgo

package hostmemory

// #include <stdlib.h>
// #ifdef __GLIBC__
// #include <malloc.h>
// static void give_back(void) { malloc_trim(0); }
// #else
// static void give_back(void) {}
// #endif
import "C"

// GiveBack hands memory that C's malloc keeps, and that nobody uses, back to the system. It takes
// some milliseconds for 100 MB.
func GiveBack() { C.give_back() }
