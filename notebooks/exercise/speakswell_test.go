package exercise

import (
	"math"
	"testing"

	"github.com/kvqbook/kvqbook/notebooks/solutions"
)

func TestPerplexity(t *testing.T) {
	arithmetic := func(logs []float64) float64 {
		sum := 0.0
		for _, l := range logs {
			sum += math.Exp(-l)
		}
		return sum / float64(len(logs))
	}
	tell(t,
		tried{"solution", Perplexity(solutions.Perplexity), ""},
		tried{"mean of the inverse probabilities", Perplexity(arithmetic), "with probabilities 1/2 and 1/8 the perplexity is 5, wanted 4 (off by 1)"},
		tried{"sign forgotten", Perplexity(func(l []float64) float64 { return 1 / solutions.Perplexity(l) }), "is 0.25, wanted 4"},
		tried{"stub", Perplexity(func([]float64) float64 { return 0 }), "0 of 4"},
		tried{"panics", Perplexity(func(l []float64) float64 { return l[len(l)] }), "panicked"},
	)
}

func TestDivergence(t *testing.T) {
	naive := func(p, q []float64) (sum float64) {
		for i := range p {
			sum += p[i] * math.Log(p[i]/q[i])
		}
		return sum
	}
	tell(t,
		tried{"solution", Divergence(solutions.Divergence), ""},
		tried{"the other way", Divergence(func(p, q []float64) float64 { return solutions.Divergence(q, p) }), "with p = [0.5 0.5] and q = [0.25 0.75] the divergence is"},
		tried{"0 times infinity", Divergence(naive), "with a probability of 0 in p the divergence is not a number (NaN)"},
		tried{"in bits", Divergence(func(p, q []float64) float64 { return solutions.Divergence(p, q) / math.Ln2 }), "off by"},
		tried{"stub", Divergence(func(_, _ []float64) float64 { return 0 }), "1 of 4"},
	)
}

func TestPartAt(t *testing.T) {
	tell(t,
		tried{"solution", PartAt(solutions.PartAt), ""},
		tried{"counts what is the same anywhere", PartAt(func(a, b []int) int {
			n := 0
			for i := range min(len(a), len(b)) {
				if a[i] == b[i] {
					n++
				}
			}
			return n
		}), "with [5 6 7 8] and [5 6 9 8] the number of shared tokens is 3, wanted 2"},
		tried{"no end", PartAt(func(a, b []int) int {
			n := 0
			for a[n] == b[n] {
				n++
			}
			return n
		}), "with [1 2 3] and [1 2 3] your function panicked"},
		tried{"stub", PartAt(func(_, _ []int) int { return 0 }), "2 of 5"},
	)
}

func TestWithinBudget(t *testing.T) {
	strict := func(bits, kl []float64, budget float64) int {
		return solutions.WithinBudget(bits, kl, budget*(1-1e-9))
	}
	last := func(_, kl []float64, budget float64) int {
		best := -1
		for i := range kl {
			if kl[i] <= budget {
				best = i
			}
		}
		return best
	}
	first := func(_, kl []float64, budget float64) int {
		for i := range kl {
			if kl[i] <= budget {
				return i
			}
		}
		return -1
	}
	tell(t,
		tried{"solution", WithinBudget(solutions.WithinBudget), ""},
		tried{"less than the budget", WithinBudget(strict), "a budget of 0.0054 the index of the cache is 1, wanted 2"},
		tried{"the last that passes", WithinBudget(last), "a budget of 0.1 the index of the cache is 2, wanted 1"},
		tried{"the first that passes", WithinBudget(first), "the index of the cache is 0, wanted 1"},
		tried{"stub", WithinBudget(func(_, _ []float64, _ float64) int { return 0 }), "0 of 4"},
	)
}
