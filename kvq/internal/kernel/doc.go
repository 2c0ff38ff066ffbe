// Package kernel is attention of single tokens over a cache as kernels for CUDA, in Triton's
// language. Package ttir writes their text and can run it on the host; XLA compiles it. Shapes with
// several queries a head, and keys with scales of channels, have a form in PTX, by tensor units
// (units.go), which package ptx writes and runs.
//
// Where the kernel runs is decided by attend.Choose.
//
// It changes when what the kernel loads, computes or stores changes.
//
// Letters for axes: B rows, K key/value heads, Q queries of a head, D head dimension, C slots for
// codes, E slots of sinks and window.
package kernel
