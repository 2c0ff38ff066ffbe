package llama

import (
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
)

// Cache is all that the model asks of a key/value cache: kvq's caches satisfy it, quantized or not, and the model does
// not know which it has. Letters: B batch, H query heads, K key/value heads, t new tokens, D head dim.
type Cache interface {
	// Positions returns the rotary positions [B, t] (int32) of the next t tokens.
	Positions(t int) *Node
	// Append adds keys (after rotary embedding) and values [B, K, t, D] of the new tokens to a layer.
	Append(layer int, keys, values *Node)
	// Attend returns the causal attention [B, H, t, D] of the new tokens' queries [B, H, t, D].
	Attend(layer int, queries *Node) *Node
	// Advance ends the step, after the last layer.
	Advance()
}
