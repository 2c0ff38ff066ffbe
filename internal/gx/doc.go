// Package gx holds graph helpers that may be used inside the closures of graph.While and graph.If,
// and says to XLA what neither GoMLX nor go-xla has a call for.
//
// # Closures
//
// Helpers here work around two faults.
//
// GoMLX v0.28.16 keeps scalar constants in a cache that belongs to the whole graph
// (Graph.getScalarConst in core/graph/graph.go), while a constant belongs to the function that was
// being built when it was made. A scalar first made in one closure is handed to a sibling closure
// too, and the sibling fails with "operands are not part of the function" or the like.
// graph.Scalar, AddScalar, MulScalar, ZerosLike, OnesLike, ReduceMean, MaskedReduceSum, Softmax,
// ClipScalar and the Bitwise...Scalar family all go through that cache. Here every constant is made
// anew with graph.Const, in the function being built. XLA merges equal constants, so this costs
// nothing.
//
// go-xla v0.4.13 likewise caches the little function that adds, or takes the maximum of, two
// values, per dtype and for the whole graph (Function.getReductionFn in compute/xla/ops_reduce.go).
// So a graph may use graph.ReduceSum of float32 in one of its functions only; a second function
// fails with "reductionFn is not a StableHLO closure of". ArgMax, ReduceWindow and the scatters
// share the fault. The reductions here hide the cache while they are built.
//
// Code that may be called while any closure is built, a caller's own too, uses this package for all
// of these. NewClosure and Loop give a closure caches of its own, so that inside them the graph
// package's functions work too. TestScalarCacheFault and TestReductionCacheFault show the faults;
// when they start to fail, the workarounds can go.
//
// The other half of the rule stays with the caller: inside a closure, both operands of an
// elementwise operation must belong to that closure. Values of the enclosing graph come in as loop
// state.
//
// # What XLA is told
//
// Reuse has XLA write a new state over the old one. Functions are parts of a graph that XLA
// compiles apart. CustomCall is an operation that XLA knows by its name. CompiledMemory reads XLA's
// figures.
//
// # The pure-Go backend
//
// GoMLX's own backend has faults in closures and loops and lacks dynamic slices; purego.go works
// around them. It has to be opened as go:ops_sequential.
//
// # Private fields
//
// Much of this reads and writes private fields of GoMLX, go-xla and compute, listed in package
// private.
// Check looks for all of them; what needs one panics with Check's line where it is not there.
//
// Functions here panic as those of the graph package do.
package gx
