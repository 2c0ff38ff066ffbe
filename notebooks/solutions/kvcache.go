// Package solutions has an answer to each exercise of the notebooks, a file a notebook. The tests
// of package notebooks/exercise try them.
package solutions

import (
	"math"
	"slices"

	"github.com/kvqbook/kvqbook/kvq"
)

// BitsPerValue is what a number costs: its code, and its share of the group's scale and zero point.
func BitsPerValue(bits, group, scaleBits int) float64 {
	return float64(bits) + 2*float64(scaleBits)/float64(group)
}

// ThereAndBack quantizes a group, and returns the numbers as they come back.
func ThereAndBack(group []float64, bits int) []float64 {
	low, high := slices.Min(group), slices.Max(group)
	scale := (high - low) / float64(int(1)<<bits-1)
	out := make([]float64, len(group))
	for i, x := range group {
		out[i] = scale*math.RoundToEven((x-low)/scale) + low
	}
	return out
}

// TokensInCodes is transformers' policy: the prompt at once, new tokens when the window is full and
// another one comes.
func TokensInCodes(prompt, fed, residual int) int {
	return prompt + max(fed-1, 0)/residual*residual
}

// Mine is a cache that the tutorial's own 20 tokens test: its window is emptied within them.
func Mine() kvq.Config {
	c := kvq.Tutorial()
	c.ResidualLength = 4
	return c
}
