package solutions

import "math"

// Perplexity is e to the mean of the negative log probabilities, in nats.
func Perplexity(logs []float64) float64 {
	sum := 0.0
	for _, l := range logs {
		sum -= l
	}
	return math.Exp(sum / float64(len(logs)))
}

// Divergence is the Kullback-Leibler divergence from p to q, in nats. What p does not expect costs
// nothing.
func Divergence(p, q []float64) (sum float64) {
	for i := range p {
		if p[i] > 0 {
			sum += p[i] * math.Log(p[i]/q[i])
		}
	}
	return sum
}

// PartAt is how many first tokens two texts share.
func PartAt(a, b []int) int {
	n := 0
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	return n
}

// WithinBudget is the cache of fewest bits whose divergence is at most budget; -1: none.
func WithinBudget(bits, kl []float64, budget float64) int {
	best := -1
	for i := range bits {
		if kl[i] <= budget && (best < 0 || bits[i] < bits[best]) {
			best = i
		}
	}
	return best
}
