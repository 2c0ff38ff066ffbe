package exercise

import (
	"fmt"
	"math"
	"slices"
)

// Perplexity checks e to the mean of the negative log probabilities.
func Perplexity(answer func(logs []float64) float64) Verdict {
	var trials []trial
	for _, c := range []struct {
		with string
		logs []float64
		want float64
	}{
		{"with every token of probability 1/4", []float64{math.Log(0.25), math.Log(0.25), math.Log(0.25)}, 4},
		{"with probabilities 1/2 and 1/8", []float64{math.Log(0.5), math.Log(0.125)}, 4},
		{"with one certain token", []float64{0}, 1},
		{"with probabilities 1/10, 1/10 and 1/80", []float64{math.Log(0.1), math.Log(0.1), math.Log(0.0125)}, 20},
	} {
		trials = append(trials, trial{c.with, func() float64 { return answer(slices.Clone(c.logs)) }, c.want})
	}
	return judge("the perplexity", 1e-9, trials...)
}

// Divergence checks the Kullback-Leibler divergence in nats, also where a probability is 0.
func Divergence(answer func(p, q []float64) float64) Verdict {
	var trials []trial
	for _, c := range []struct {
		with string
		p, q []float64
		want float64
	}{
		{"with p and q the same", []float64{0.5, 0.5}, []float64{0.5, 0.5}, 0},
		{"with p = [0.5 0.5] and q = [0.25 0.75]", []float64{0.5, 0.5}, []float64{0.25, 0.75}, 0.5*math.Log(2) + 0.5*math.Log(0.5/0.75)},
		{"with p = [0.25 0.75] and q = [0.5 0.5]", []float64{0.25, 0.75}, []float64{0.5, 0.5}, 0.25*math.Log(0.5) + 0.75*math.Log(1.5)},
		{"with a probability of 0 in p", []float64{1, 0}, []float64{0.5, 0.5}, math.Log(2)},
	} {
		trials = append(trials, trial{c.with, func() float64 { return answer(slices.Clone(c.p), slices.Clone(c.q)) }, c.want})
	}
	return judge("the divergence", 1e-9, trials...)
}

// PartAt checks how many first tokens two texts share.
func PartAt(answer func(a, b []int) int) Verdict {
	var trials []trial
	for _, c := range []struct {
		a, b []int
		want int
	}{
		{[]int{5, 6, 7, 8}, []int{5, 6, 9, 8}, 2},
		{[]int{1, 2, 3}, []int{1, 2, 3}, 3},
		{[]int{1, 2, 3}, []int{1, 2}, 2},
		{[]int{4}, []int{1, 2, 3}, 0},
		{nil, []int{1}, 0},
	} {
		trials = append(trials, trial{fmt.Sprintf("with %v and %v", c.a, c.b),
			func() float64 { return float64(answer(slices.Clone(c.a), slices.Clone(c.b))) }, float64(c.want)})
	}
	return judge("the number of shared tokens", 0, trials...)
}

// WithinBudget checks the choice of a cache: an index, -1 for none.
func WithinBudget(answer func(bits, kl []float64, budget float64) int) Verdict {
	var trials []trial
	for _, c := range []struct {
		bits, kl []float64
		budget   float64
		want     int
	}{
		{[]float64{6.5, 5, 3.25}, []float64{0.0001, 0.0004, 0.0054}, 0.001, 1},
		{[]float64{6.5, 5, 3.25}, []float64{0.0001, 0.0004, 0.0054}, 0.0054, 2},
		{[]float64{3, 4, 5}, []float64{0.62, 0.002, 0.01}, 0.1, 1},
		{[]float64{3, 5}, []float64{0.62, 0.01}, 0.001, -1},
	} {
		trials = append(trials, trial{fmt.Sprintf("with bits %v, divergences %v and a budget of %g", c.bits, c.kl, c.budget),
			func() float64 { return float64(answer(slices.Clone(c.bits), slices.Clone(c.kl), c.budget)) }, float64(c.want)})
	}
	return judge("the index of the cache", 0, trials...)
}
