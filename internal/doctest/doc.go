// Package doctest checks what the documents say against the tree: links, paths, Go names, flags and
// environment variables exist, docs/tree.md is complete, and docs/benchmarks.md quotes its
// sections rightly. It holds nothing but tests.
package doctest
