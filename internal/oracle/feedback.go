package oracle

import "math"

// Feedback rounds one token channel by channel, the last one first, so that eᵀ·M·e of its errors e
// = x - x' is small. It is derived from the aim itself, without a factor of M: when channel d is
// rounded, the errors behind it are settled, and those before it are taken as free numbers. The
// error of d that is best then is a coordinate of the least of a quadratic form,
//
//	e_{0..d} = -M_{0..d,0..d}⁻¹ · M_{0..d,d+1..} · e_{d+1..}
//
// and the code is that of the value nearest to x_d minus that error. scale and zero are those of
// each channel; a scale of 0 has code 0. near is how far the value that was nearest to the middle
// between two codes was from it, in steps: where it is tiny, other rounding gives other codes.
func Feedback(x, scale, zero []float64, metric [][]float64, bits int) (codes []uint8, near float64) {
	codes, near = make([]uint8, len(x)), math.Inf(1)
	errors := make([]float64, len(x))
	for d := len(x) - 1; d >= 0; d-- {
		if scale[d] == 0 {
			errors[d] = x[d] - zero[d]
			continue
		}
		steps := (x[d] - bestError(metric, errors, d) - zero[d]) / scale[d]
		code := min(max(math.RoundToEven(steps), 0), float64(int(1)<<bits-1))
		if steps > -0.5 && steps < float64(int(1)<<bits)-0.5 {
			near = min(near, math.Abs(steps-math.Floor(steps)-0.5))
		}
		codes[d], errors[d] = uint8(code), x[d]-(scale[d]*code+zero[d])
	}
	return codes, near
}

// bestError is the error of channel d for which the form is least, with those behind d given and
// those before it free.
func bestError(metric [][]float64, errors []float64, d int) float64 {
	system := make([][]float64, d+1)
	for i := range system {
		system[i] = append([]float64{}, metric[i][:d+1]...)
		sum := 0.0
		for j := d + 1; j < len(errors); j++ {
			sum -= metric[i][j] * errors[j]
		}
		system[i] = append(system[i], sum)
	}
	return lastOf(system)
}

// lastOf solves a linear system, each line of which ends with its right-hand side, by Gauss's
// elimination with pivots, and returns the last unknown.
func lastOf(system [][]float64) float64 {
	n := len(system)
	for at := range n {
		best := at
		for i := at; i < n; i++ {
			if math.Abs(system[i][at]) > math.Abs(system[best][at]) {
				best = i
			}
		}
		system[at], system[best] = system[best], system[at]
		for i := at + 1; i < n; i++ {
			factor := system[i][at] / system[at][at]
			for j := at; j <= n; j++ {
				system[i][j] -= factor * system[at][j]
			}
		}
	}
	return system[n-1][n] / system[n-1][n-1]
}
