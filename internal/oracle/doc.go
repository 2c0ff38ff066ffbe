// Package oracle derives what a quantized key/value cache must do a second time, in plain Go, so
// that tests compare two derivations. It imports no GoMLX and shares no code with package kvq.
//
// Letters: B batch, H query heads, K key/value heads, T tokens, D head dim, G group.
package oracle
