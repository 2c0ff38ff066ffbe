// Package cpukernel is what a cache does in C on a CPU, each as one operation of XLA's programs,
// which XLA knows as a custom call: attention of single tokens over all that a cache holds of a
// layer ([Attend]), and coding of the keys or values of a prompt or a flush ([Encode]).
//
// As operations of a graph attention is some thirty loops of XLA's a layer, and coding with few
// bits more, each with its own waking of threads, and most of what a program takes to compile. Here
// each is one pass over the codes, in registers, or over as many tokens as share scales.
//
// The functions are registered with the plugin through PJRT's FFI extension (package pjrt). Where
// that cannot be done, or the processor is not one that the C is written for, Lacks says so, and
// graph operations stay.
//
// attend.h and encode.h say what the arithmetic gets. handler.c and encodehandler.c make that of an
// operation's inputs, and share.c shares the work among threads.
//
// Letters for axes: B rows, K key/value heads, Q queries of a head, D head dimension, E slots of
// sinks and window, T tokens.
package cpukernel
