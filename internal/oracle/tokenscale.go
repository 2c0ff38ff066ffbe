package oracle

import "math"

// TokenScales are the scales of a group's tokens, [G][D] finite numbers, that stand beside the
// scales of its channels: the root mean square of each token, with channels brought to a root mean
// square of 1, in three rounds, in float64. The largest is 1. They are rounded to the nearest
// number of a byte: 4 bits of mantissa, whole multiples of 2^-12 below 2^-8.
func TokenScales(tokens [][]float32) []float32 {
	sizes := tokenSizes(tokens)
	largest := 0.0
	for _, size := range sizes {
		largest = max(largest, size)
	}
	out := make([]float32, len(tokens))
	for i, size := range sizes {
		if largest > 0 {
			out[i] = byteScale(size / largest)
		}
	}
	return out
}

// tokenSizes are the scales before they are rounded, up to a common factor.
func tokenSizes(tokens [][]float32) []float64 {
	g, d := len(tokens), len(tokens[0])
	channels := make([]float64, d)
	for i := range channels {
		channels[i] = 1
	}
	sizes := make([]float64, g)
	for round := range 3 {
		if round > 0 {
			for c := range channels {
				sum := 0.0
				for i, token := range tokens {
					if sizes[i] > 0 {
						sum += math.Pow(float64(token[c])/sizes[i], 2)
					}
				}
				channels[c] = math.Sqrt(sum / float64(g))
			}
		}
		for i, token := range tokens {
			sum := 0.0
			for c, x := range token {
				if channels[c] > 0 {
					sum += math.Pow(float64(x)/channels[c], 2)
				}
			}
			sizes[i] = math.Sqrt(sum / float64(d))
		}
	}
	return sizes
}

// byteScale rounds a scale of at most 1 to the nearest number of a byte, ties away from 0.
func byteScale(x float64) float32 {
	unit := math.Ldexp(1, -12)
	if _, exponent := math.Frexp(x); x >= math.Ldexp(1, -8) {
		unit = math.Ldexp(1, exponent-1-4)
	}
	return float32(math.Round(x/unit) * unit)
}
