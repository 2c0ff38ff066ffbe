// Package doctest checks what the documents say against the tree: links, paths, Go names, flags and
// environment variables exist, docs/tree.md is complete, docs/benchmarks.md quotes its sections
// rightly, and every command line is run by a test or has a reason why not. Commands lists these,
// for the tests of cmd/kvq; all the rest are tests.
package doctest
