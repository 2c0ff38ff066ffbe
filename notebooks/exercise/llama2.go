package exercise

import (
	"fmt"

	"github.com/kvqbook/kvqbook/notebooks/nb"
)

// Parameters checks the number of a Llama's weights: two tables of the vocabulary, one norm at the
// end, and in each layer four matrices of attention, three of the network behind it and two norms.
func Parameters(answer func(vocab, hidden, inner, layers int) int64) Verdict {
	var trials []trial
	for _, name := range []string{"Llama-2-7B", "Llama-2-13B"} {
		c := nb.PublishedConfig(name)
		trials = append(trials, trial{
			fmt.Sprintf("with %s (%d tokens, hidden size %d, inner size %d, %d layers)", name, c.VocabSize, c.HiddenSize, c.IntermediateSize, c.Layers),
			func() float64 { return float64(answer(c.VocabSize, c.HiddenSize, c.IntermediateSize, c.Layers)) }, float64(c.ParameterCount())})
	}
	return judge("the number of parameters", 0, trials...)
}

// StepFloor checks the least time of a step in milliseconds: all weights once, and the cache of
// every row, through the memory's bandwidth.
func StepFloor(answer func(weights, cacheOfRow int64, rows int, gbPerSecond float64) float64) Verdict {
	var trials []trial
	for _, c := range []struct {
		name                string
		weights, cacheOfRow int64
		rows                int
		gbPerSecond, want   float64
	}{
		{"12 GB of weights, no cache and 4,000 GB/s", 12e9, 0, 1, 4000, 3},
		{"12 GB of weights, a row of 2 GB and 4,000 GB/s", 12e9, 2e9, 1, 4000, 3.5},
		{"12 GB of weights, 32 rows of 2 GB and 4,000 GB/s", 12e9, 2e9, 32, 4000, 19},
		{"12 GB of weights, 32 rows of 500 MB and 2,000 GB/s", 12e9, 500e6, 32, 2000, 14},
	} {
		trials = append(trials, trial{"with " + c.name,
			func() float64 { return answer(c.weights, c.cacheOfRow, c.rows, c.gbPerSecond) }, c.want})
	}
	return judge("the time in milliseconds", 1e-9, trials...)
}

// RowsToOutweigh checks from how many rows on the cache is larger than the weights.
func RowsToOutweigh(answer func(weights, perToken int64, tokens int) int) Verdict {
	var trials []trial
	for _, c := range []struct {
		name              string
		weights, perToken int64
		tokens, want      int
	}{
		{"Llama-2-7B in 16 bits and 4,096 tokens", 13_476_831_232, 524_288, 4096, 7},
		{"the same with a cache of a third", 13_476_831_232, 174_762, 4096, 19},
		{"a row that is as large as the weights", 1000, 10, 100, 2},
		{"a row that is larger than the weights", 1000, 10, 101, 1},
	} {
		trials = append(trials, trial{"with " + c.name,
			func() float64 { return float64(answer(c.weights, c.perToken, c.tokens)) }, float64(c.want)})
	}
	return judge("the number of rows", 0, trials...)
}
