// Package attend is attention over the parts that a cache holds: exact tokens, and codes tile by
// tile or word by word. Parts are computed apart and merged exactly. It also says which form of
// attention over codes runs where (form.go); the form for CUDA is package kernel.
//
// It changes when attention over a part is computed in another way, or a form runs elsewhere.
//
// Letters for axes: B rows, H query heads, K key/value heads, t new tokens, D head dimension, N
// tokens or blocks of a part, and Q = (H/K)·t, the queries that share a key/value head.
package attend
