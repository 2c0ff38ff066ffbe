package judge

import "math"

// Wilson is the interval that holds a share with a probability of 95 %, where right of n trials
// came out right (Wilson 1927, "Probable Inference, the Law of Succession, and Statistical
// Inference"). 0 to 1 without a trial.
func Wilson(right, n int) (low, high float64) {
	if n == 0 {
		return 0, 1
	}
	const z = 1.959963984540054 // 97.5 % of a normal distribution lie below
	size, p := float64(n), float64(right)/float64(n)
	middle := (p + z*z/(2*size)) / (1 + z*z/size)
	half := z / (1 + z*z/size) * math.Sqrt(p*(1-p)/size+z*z/(4*size*size))
	return max(0, middle-half), min(1, middle+half)
}

// Mean is the mean of values and its standard error, for independent ones. The error of fewer than
// two is NaN, the mean of none too.
func Mean(values []float64) (mean, standardError float64) {
	n := float64(len(values))
	for _, x := range values {
		mean += x / n
	}
	if n < 1 {
		return math.NaN(), math.NaN()
	}
	if n < 2 {
		return mean, math.NaN()
	}
	var squares float64
	for _, x := range values {
		squares += (x - mean) * (x - mean)
	}
	return mean, math.Sqrt(squares / (n - 1) / n)
}

// Stretches are the means of runs of n neighbours each, the rest of fewer than n left out unless it
// is all there is. Neighbours in a text are alike: means of stretches are nearly independent, and
// so give an honest standard error.
func Stretches(values []float32, n int) []float64 {
	var list []float64
	for len(values) >= n || len(list) == 0 && len(values) > 0 {
		m := min(n, len(values))
		var sum float64
		for _, x := range values[:m] {
			sum += float64(x)
		}
		list, values = append(list, sum/float64(m)), values[m:]
	}
	return list
}
