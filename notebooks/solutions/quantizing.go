package solutions

import (
	"math"
	"slices"
)

// CodeOf is the nearest code that the bits have.
func CodeOf(x, low, step float64, bits int) int {
	if step == 0 {
		return 0 // all numbers of the group are equal
	}
	code := math.RoundToEven((x - low) / step)
	return int(min(max(code, 0), float64(int(1)<<bits-1)))
}

// Packed is a word of codes, the first in the lowest bits.
func Packed(codes []int, bits int) (word uint32) {
	for i, code := range codes {
		word |= uint32(code) << (bits * i)
	}
	return word
}

// OutlierChannels are the channels whose largest number is more than factor times the median of all
// channels' largest numbers.
func OutlierChannels(keys [][]float64, factor float64) (channels []int) {
	largest := make([]float64, len(keys[0]))
	for _, row := range keys {
		for d, x := range row {
			largest[d] = max(largest[d], math.Abs(x))
		}
	}
	median := slices.Sorted(slices.Values(largest))[len(largest)/2]
	for d, x := range largest {
		if x > factor*median {
			channels = append(channels, d)
		}
	}
	return channels
}

// Rotated is the Walsh-Hadamard transform: sums and differences of pairs that lie further and
// further apart, divided by sqrt of the length so that lengths stay.
func Rotated(x []float64) []float64 {
	for apart := 1; apart < len(x); apart *= 2 {
		for i := range x {
			if i&apart == 0 {
				x[i], x[i+apart] = x[i]+x[i+apart], x[i]-x[i+apart]
			}
		}
	}
	for i := range x {
		x[i] /= math.Sqrt(float64(len(x)))
	}
	return x
}
