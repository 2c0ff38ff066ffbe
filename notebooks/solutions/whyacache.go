package solutions

import (
	"math"
	"slices"
)

// AttentionWeights is softmax(query·keys / sqrt(D)). The largest score is subtracted first, which
// changes no quotient and keeps the exponentials finite.
func AttentionWeights(query []float64, keys [][]float64) []float64 {
	weights := make([]float64, len(keys))
	for i, key := range keys {
		for d := range query {
			weights[i] += query[d] * key[d] / math.Sqrt(float64(len(query)))
		}
	}
	largest, sum := slices.Max(weights), 0.0
	for i, score := range weights {
		weights[i] = math.Exp(score - largest)
		sum += weights[i]
	}
	for i := range weights {
		weights[i] /= sum
	}
	return weights
}

// KeysComputed is how many keys a head computes: the newest token's key is made when the next one
// is wanted, so the last new token has none.
func KeysComputed(prompt, fresh int, cached bool) int {
	if cached {
		return prompt + fresh - 1
	}
	return fresh*prompt + fresh*(fresh-1)/2
}

// BytesPerToken counts keys and values.
func BytesPerToken(layers, kvHeads, headDim, bytes int) int {
	return 2 * layers * kvHeads * headDim * bytes
}

// Sequences is how many texts fit beside the weights.
func Sequences(memory, weights, perToken int64, tokens int) int {
	return int(max(memory-weights, 0) / (perToken * int64(tokens)))
}
