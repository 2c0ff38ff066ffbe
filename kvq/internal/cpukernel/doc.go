// Package cpukernel is attention of single tokens over all that a cache holds of a layer, in C: one
// operation of XLA's programs on a CPU, which XLA knows as a custom call.
//
// As operations of a graph it is some thirty loops of XLA's a layer, each with its own waking of
// threads, and most of what a decode loop takes to compile. Here it is one pass over the codes, in
// registers.
//
// The function is registered with the plugin through PJRT's FFI extension (package pjrt). Where
// that cannot be done, or the processor is not one that the C is written for, [Lacks] says so, and
// attend.Choose takes graph operations.
//
// attend.h says what the arithmetic gets. handler.c makes that of an operation's inputs, and shares
// the work among threads.
//
// Letters for axes: B rows, K key/value heads, Q queries of a head, D head dimension, E slots of
// sinks and window.
package cpukernel
