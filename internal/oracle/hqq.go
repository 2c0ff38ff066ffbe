package oracle

import "math"

// HQQ quantizes groups with hqq's half-quadratic search for the zero point, in float64. The search
// stops for all groups at once, when the mean error of all elements does not fall any more. Values
// are (code - z)·factor.
//
// gap is how clearly it stopped where it did: the least relative distance between a mean error and
// the best before it. Where it is about as small as the rounding of float32, a search in float32
// may rightly stop an iteration earlier or later.
//
// It follows Quantizer.quantize and optimize_weights_proximal_legacy of hqq 0.2.8, with the sums in
// double precision.
func HQQ(groups [][]float64, bits int) (codes [][]uint8, factor, z []float64, gap float64) {
	top := float64(int(1)<<bits - 1)
	scale := make([]float64, len(groups))
	z = make([]float64, len(groups))
	for i, x := range groups {
		low, high := math.Inf(1), math.Inf(-1)
		for _, v := range x {
			low, high = min(low, v), max(high, v)
		}
		scale[i] = min(top/(high-low), 2e4)
		if high-low <= 1e-4 {
			scale[i] = 1
		}
		z[i] = -low * scale[i]
	}
	code := func(i int, v float64) float64 {
		return min(max(math.RoundToEven(v*scale[i]+z[i]), 0), top)
	}
	gap = math.Inf(1)
	for best, iteration := math.Inf(1), 0; iteration < 20; iteration++ {
		sum, count := 0.0, 0
		next := make([]float64, len(groups))
		for i, x := range groups {
			for _, v := range x {
				q := code(i, v)
				e := v - (q-z[i])/scale[i]
				sum, count = sum+math.Abs(e), count+1
				left := max(math.Abs(e)-math.Pow(math.Abs(e), 0.7-1)/10, 0)
				next[i] += q - (v-math.Copysign(left, e))*scale[i]
			}
			next[i] /= float64(len(x))
		}
		z = next
		mean := sum / float64(count)
		if iteration > 0 && best > 0 {
			gap = min(gap, math.Abs(mean-best)/best)
		}
		if mean < best {
			best = mean
		} else {
			break
		}
	}
	codes, factor = make([][]uint8, len(groups)), make([]float64, len(groups))
	for i, x := range groups {
		factor[i] = 1 / scale[i]
		for _, v := range x {
			codes[i] = append(codes[i], uint8(code(i, v)))
		}
	}
	return codes, factor, z, gap
}
