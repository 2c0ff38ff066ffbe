package solutions

import "math"

// InBlocks is how many tokens are in codes: whole blocks of what neither sinks nor window keep. A
// new token waits until the next one comes.
func InBlocks(prompt, fed, sinks, residual int) int {
	tokens := prompt + fed
	if fed > 0 {
		tokens--
	}
	return max(tokens-sinks-residual, 0) / 32 * 32
}

// RingSlot is the slot of a token in full precision.
func RingSlot(token, sinks, window int) int {
	if token < sinks {
		return token
	}
	return sinks + token%window
}

// CodeAt is the i-th code of a word: shifted to the lowest bits, and the others masked.
func CodeAt(word uint32, i, bits int) int {
	return int(word >> (bits * i) & (1<<bits - 1))
}

// Merged makes one result of two parts of an attention: both are brought to the same largest score,
// which none of their exponentials exceeds.
func Merged(largestA, sumA, outA, largestB, sumB, outB float64) float64 {
	largest := max(largestA, largestB)
	a, b := math.Exp(largestA-largest), math.Exp(largestB-largest)
	return (a*outA + b*outB) / (a*sumA + b*sumB)
}
