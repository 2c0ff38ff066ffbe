package evaluate

import (
	"math"
	"slices"
)

// KLError is the standard error of MeanKL, in nats: how far the mean of another sample of such
// tokens may be from it. It takes tokens for independent. NaN for fewer than two tokens.
func (s Scores) KLError() float64 { return standardError(s.KL) }

// KLQuantile is the divergence that a share q of the tokens, 0 to 1, do not exceed, in nats: 0.5 is
// the median, 1 the largest. Between two tokens it is interpolated linearly, as llama.cpp's
// llama-perplexity does. NaN without a reference.
func (s Scores) KLQuantile(q float64) float64 {
	if len(s.KL) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(s.KL))
	at := q * float64(len(sorted)-1)
	below := int(at)
	above := min(below+1, len(sorted)-1)
	share := at - float64(below)
	return (1-share)*float64(sorted[below]) + share*float64(sorted[above])
}

// PerplexityRatio is the perplexity over that of the reference's scores of the same tokens, and the
// standard error of the ratio. The two are compared token by token, so that what makes a text hard
// for both does not count. NaN where they are not of the same tokens.
func (s Scores) PerplexityRatio(reference Scores) (ratio, err float64) {
	if len(s.NLL) != len(reference.NLL) {
		return math.NaN(), math.NaN()
	}
	differences := make([]float32, len(s.NLL))
	for i := range differences {
		differences[i] = s.NLL[i] - reference.NLL[i]
	}
	ratio = math.Exp(mean(differences))
	return ratio, ratio * standardError(differences)
}

// standardError is that of the mean of values.
func standardError(values []float32) float64 {
	n := float64(len(values))
	if n < 2 {
		return math.NaN()
	}
	m, squares := mean(values), 0.0
	for _, x := range values {
		squares += (float64(x) - m) * (float64(x) - m)
	}
	return math.Sqrt(squares / (n - 1) / n)
}
