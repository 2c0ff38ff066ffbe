package exercise

import (
	"fmt"
	"math"
	"slices"
)

// AttentionWeights checks softmax(query·keys / sqrt(D)), also for scores that a naive exponential
// cannot hold.
func AttentionWeights(answer func(query []float64, keys [][]float64) []float64) Verdict {
	cases := []struct {
		name  string
		query []float64
		keys  [][]float64
	}{
		{"two equal keys", []float64{1, 2}, [][]float64{{1, 0}, {1, 0}}},
		{"three keys of 2 numbers", []float64{1, 2}, [][]float64{{1, 0}, {0, 1}, {-1, 1}}},
		{"four keys of 4 numbers", []float64{1, -1, 0.5, 2}, [][]float64{{1, 0, 0, 1}, {0, 1, 2, 0}, {1, 1, 1, 1}, {-2, 0, 1, 0.5}}},
		{"keys so long that exp(score) is infinite", []float64{30, 40}, [][]float64{{30, 40}, {30, 40.01}, {0, 1}}},
	}
	for i, c := range cases {
		keys := make([][]float64, len(c.keys))
		for j := range keys {
			keys[j] = slices.Clone(c.keys[j])
		}
		got, panicked := attempt(func() []float64 { return answer(slices.Clone(c.query), keys) })
		switch {
		case panicked != "":
			return notYet("with %s your function panicked: %s", c.name, panicked)
		case len(got) != len(c.keys):
			return notYet("with %s %d weights came, wanted %d, one for each key", c.name, len(got), len(c.keys))
		}
		sum := 0.0
		for j, want := range softmaxOfScores(c.query, c.keys) {
			if off := math.Abs(got[j] - want); !(off <= 1e-9) {
				return notYet("with %s weight %d is %.4g, wanted %.4g. %d of %d cases are right", c.name, j+1, got[j], want, i, len(cases))
			}
			sum += got[j]
		}
		if math.Abs(sum-1) > 1e-9 {
			return notYet("with %s the weights add up to %g, wanted 1", c.name, sum)
		}
	}
	return right("the weights, in all %d cases", len(cases))
}

// softmaxOfScores subtracts the largest score first, which changes no quotient.
func softmaxOfScores(query []float64, keys [][]float64) []float64 {
	scores := make([]float64, len(keys))
	for i, key := range keys {
		for d := range key {
			scores[i] += query[d] * key[d]
		}
		scores[i] /= math.Sqrt(float64(len(query)))
	}
	largest, sum := slices.Max(scores), 0.0
	for i := range scores {
		scores[i] = math.Exp(scores[i] - largest)
		sum += scores[i]
	}
	for i := range scores {
		scores[i] /= sum
	}
	return scores
}

// KeysComputed checks how many keys of one head are computed for a prompt and new tokens, the last
// of which is only printed.
func KeysComputed(answer func(prompt, fresh int, cached bool) int) Verdict {
	var trials []trial
	for _, c := range []struct {
		prompt, fresh int
		cached        bool
	}{{9, 20, true}, {9, 20, false}, {1, 1, false}, {1, 1, true}, {100, 1000, true}, {100, 1000, false}} {
		want := c.prompt // the first new token comes from the prompt alone
		for n := 1; n < c.fresh; n++ {
			if c.cached {
				want++
			} else {
				want += c.prompt + n
			}
		}
		how := "without a cache"
		if c.cached {
			how = "with a cache"
		}
		trials = append(trials, trial{fmt.Sprintf("with a prompt of %d and %d new tokens, %s,", c.prompt, c.fresh, how),
			func() float64 { return float64(answer(c.prompt, c.fresh, c.cached)) }, float64(want)})
	}
	return judge("the number of keys", 0, trials...)
}

// BytesPerToken checks what a token takes in a full-precision cache.
func BytesPerToken(answer func(layers, kvHeads, headDim, bytes int) int) Verdict {
	var trials []trial
	for _, c := range []struct {
		name                            string
		layers, kvHeads, headDim, bytes int
		want                            int // docs/architectures.md, in KiB times 1024
	}{
		{"Llama-2-7B in 16-bit floats", 32, 32, 128, 2, 512 << 10},
		{"Llama-3.1-8B in 16-bit floats", 32, 8, 128, 2, 128 << 10},
		{"SmolLM2-135M in 32-bit floats", 30, 3, 64, 4, 45 << 10},
	} {
		trials = append(trials, trial{"with " + c.name, func() float64 { return float64(answer(c.layers, c.kvHeads, c.headDim, c.bytes)) }, float64(c.want)})
	}
	return judge("the bytes of a token", 0, trials...)
}

// Sequences checks how many texts of a length fit beside the weights.
func Sequences(answer func(memory, weights, perToken int64, tokens int) int) Verdict {
	const gb = 1_000_000_000
	var trials []trial
	for _, c := range []struct {
		name                      string
		memory, weights, perToken int64
		tokens, want              int
	}{
		{"24 GB, Llama-2-7B and 4,096 tokens", 24 * gb, 13_476_831_232, 512 << 10, 4096, 4},
		{"80 GB, Llama-2-7B and 4,096 tokens", 80 * gb, 13_476_831_232, 512 << 10, 4096, 30},
		{"24 GB, Llama-3.1-8B and 8,192 tokens", 24 * gb, 16_060_522_496, 128 << 10, 8192, 7},
		{"exactly as much memory as two texts need", 1000 + 2*64*10, 1000, 10, 64, 2},
		{"less memory than the weights need", 10 * gb, 13_476_831_232, 512 << 10, 4096, 0},
	} {
		trials = append(trials, trial{"with " + c.name, func() float64 { return float64(answer(c.memory, c.weights, c.perToken, c.tokens)) }, float64(c.want)})
	}
	return judge("the number of texts", 0, trials...)
}
