// Package codes packs codes of a few bits into blocks of words, and sums over them without
// unpacking them into memory. It knows no quantizer: what a code stands for is the business of
// package numbers.
//
// It changes when the layout of codes or the way they are summed changes.
//
// Letters for axes: B rows, K key/value heads, Q queries of a head, D head dimension, G values of a
// group, N blocks.
package codes
