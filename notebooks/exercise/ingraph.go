package exercise

import (
	"fmt"
	"math"
)

// InBlocks checks this library's policy: how many of a row's tokens are in codes after a prompt and
// so many tokens fed one by one. Sinks and at least the newest residual tokens are exact; what is
// older leaves the window in blocks of 32: of the prompt at once, later when the window is full and
// another token comes.
func InBlocks(answer func(prompt, fed, sinks, residual int) int) Verdict {
	var trials []trial
	for _, c := range inBlocks {
		trials = append(trials, trial{fmt.Sprintf("with a prompt of %d, %d new tokens, %d sinks and a residual of %d", c.prompt, c.fed, c.sinks, c.residual),
			func() float64 { return float64(answer(c.prompt, c.fed, c.sinks, c.residual)) }, float64(c.want)})
	}
	return judge("the number of tokens in codes", 0, trials...)
}

// What a real cache holds ([nb.Life]), tested.
var inBlocks = []struct{ prompt, fed, sinks, residual, want int }{
	{100, 0, 4, 64, 32}, {100, 32, 4, 64, 32}, {100, 33, 4, 64, 64}, {182, 8, 4, 64, 96},
	{99, 0, 4, 64, 0}, {20, 20, 4, 64, 0}, {33, 2, 2, 0, 32},
}

// RingSlot checks where a token in full precision lies: sinks for good in the first slots, all
// others in a ring behind them, by the token's number.
func RingSlot(answer func(token, sinks, window int) int) Verdict {
	var trials []trial
	for _, c := range ringSlots {
		trials = append(trials, trial{fmt.Sprintf("with token %d, %d sinks and %d slots of window", c.token, c.sinks, c.window),
			func() float64 { return float64(answer(c.token, c.sinks, c.window)) }, float64(c.want)})
	}
	return judge("the slot", 0, trials...)
}

// What a real cache does ([nb.ExactSlots]), tested.
var ringSlots = []struct{ token, sinks, window, want int }{
	{1, 2, 48, 1}, {2, 2, 48, 4}, {45, 2, 48, 47}, {48, 2, 48, 2}, {69, 2, 48, 23}, {0, 2, 48, 0},
}

// CodeAt checks the way back from a word: the i-th code of so many bits, the first in the lowest.
func CodeAt(answer func(word uint32, i, bits int) int) Verdict {
	var trials []trial
	for _, c := range []struct {
		word    uint32
		i, bits int
		want    int
	}{
		{0x87654321, 0, 4, 1}, {0x87654321, 3, 4, 4}, {0x87654321, 7, 4, 8},
		{0b110010, 1, 2, 0}, {0b110010, 2, 2, 3}, {0x01c8, 0, 8, 200},
	} {
		trials = append(trials, trial{fmt.Sprintf("with the word %#x, code %d of %d bits each", c.word, c.i, c.bits),
			func() float64 { return float64(answer(c.word, c.i, c.bits)) }, float64(c.want)})
	}
	return judge("the code", 0, trials...)
}

// Merged checks that two parts of an attention become the whole one. A part is its largest score,
// the sum of exp(score - largest), and the sum of values weighed with these.
func Merged(answer func(largestA, sumA, outA, largestB, sumB, outB float64) float64) Verdict {
	var trials []trial
	for _, c := range []struct {
		name string
		a, b []float64 // scores; values are 1, 2, 3 … through both
	}{
		{"two equal scores", []float64{1}, []float64{1}},
		{"the larger score in the first part", []float64{0, 3}, []float64{1}},
		{"the larger score in the second part", []float64{-1, 0.5, 0}, []float64{2, 1}},
		{"scores of some thousands", []float64{4000, 4001}, []float64{3999}},
		{"a second part that hardly counts", []float64{10, 9}, []float64{-60}},
	} {
		la, sa, oa := partOf(c.a, 1)
		lb, sb, ob := partOf(c.b, 1+len(c.a))
		_, sum, out := partOf(append(append([]float64{}, c.a...), c.b...), 1)
		trials = append(trials, trial{"with " + c.name, func() float64 { return answer(la, sa, oa, lb, sb, ob) }, out / sum})
	}
	return judge("the result", 1e-9, trials...)
}

// partOf attends to some tokens whose values are first, first+1 and so on.
func partOf(scores []float64, first int) (largest, sum, out float64) {
	largest = math.Inf(-1)
	for _, s := range scores {
		largest = max(largest, s)
	}
	for i, s := range scores {
		weight := math.Exp(s - largest)
		sum += weight
		out += weight * float64(first+i)
	}
	return largest, sum, out
}
