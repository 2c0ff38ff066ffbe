package exercise

import (
	"fmt"
	"math"
	"slices"

	"github.com/kvqbook/kvqbook/kvq"
)

// CodeOf checks the code of a number: the nearest, and none that the bits do not have.
func CodeOf(answer func(x, low, step float64, bits int) int) Verdict {
	var trials []trial
	for _, c := range []struct {
		x, low, step float64
		bits, want   int
	}{
		{-1.7, -1.7, 0.4, 4, 0}, {4.3, -1.7, 0.4, 4, 15}, {1, -1.7, 0.4, 4, 7}, {0.6, -1.7, 0.4, 4, 6},
		{-5, -1.7, 0.4, 4, 0}, {99, -1.7, 0.4, 4, 15}, {99, 0, 1, 2, 3}, {3, 3, 0, 4, 0},
	} {
		trials = append(trials, trial{fmt.Sprintf("with x = %g, low = %g, step = %g and %d bits", c.x, c.low, c.step, c.bits),
			func() float64 { return float64(answer(c.x, c.low, c.step, c.bits)) }, float64(c.want)})
	}
	return judge("the code", 0, trials...)
}

// Packed checks a word: the first code in the lowest bits.
func Packed(answer func(codes []int, bits int) uint32) Verdict {
	cases := []struct {
		codes []int
		bits  int
		want  uint32
	}{
		{[]int{5}, 4, 0x5}, {[]int{1, 2}, 4, 0x21}, {[]int{1, 2, 3, 4, 5, 6, 7, 8}, 4, 0x87654321},
		{[]int{3, 0, 1}, 2, 0b010011}, {[]int{200, 1}, 8, 0x01c8}, {[]int{15, 15, 15, 15, 15, 15, 15, 15}, 4, 0xffffffff},
	}
	for i, c := range cases {
		got, panicked := attempt(func() uint32 { return answer(slices.Clone(c.codes), c.bits) })
		switch {
		case panicked != "":
			return notYet("with codes %v of %d bits your function panicked: %s", c.codes, c.bits, panicked)
		case got != c.want:
			return notYet("with codes %v of %d bits the word is %#x, wanted %#x. %d of %d cases are right", c.codes, c.bits, got, c.want, i, len(cases))
		}
	}
	return right("the word, in all %d cases", len(cases))
}

// OutlierChannels checks which channels are larger than the others: whose largest number, without
// its sign, is more than factor times the median of all channels' largest numbers.
func OutlierChannels(answer func(keys [][]float64, factor float64) []int) Verdict {
	table := func(large ...int) [][]float64 {
		var rows [][]float64
		for t := range 8 {
			row := make([]float64, 9)
			for d := range row {
				row[d] = math.Cos(float64(t*9 + d)) // at most 1, in every channel at least 0.9 once
				if slices.Contains(large, d) {
					row[d] -= 7
				}
			}
			rows = append(rows, row)
		}
		return rows
	}
	for _, c := range []struct {
		name string
		keys [][]float64
		want []int
	}{
		{"no channel larger than the others", table(), []int{}},
		{"channel 4 far below 0", table(4), []int{4}},
		{"channels 0 and 8 far below 0", table(0, 8), []int{0, 8}},
	} {
		got, panicked := attempt(func() []int { return answer(c.keys, 4) })
		if panicked != "" {
			return notYet("with %s your function panicked: %s", c.name, panicked)
		}
		got = slices.Sorted(slices.Values(got))
		if !slices.Equal(got, c.want) {
			return notYet("with %s and factor 4 the channels are %v, wanted %v", c.name, got, c.want)
		}
	}
	return right("the channels, in all 3 cases")
}

// Rotated checks a Walsh-Hadamard transform that keeps lengths.
func Rotated(answer func(x []float64) []float64) Verdict {
	for _, x := range [][]float64{{3, 4}, {1, 0}, {1, 2, 3, 4}, {0, 0, 0, 8, 0, 0, 0, 0}, {1, -2, 0.5, 4, -1, 7, 2, 3}} {
		got, panicked := attempt(func() []float64 { return answer(slices.Clone(x)) })
		if panicked != "" {
			return notYet("with %v your function panicked: %s", x, panicked)
		}
		if len(got) != len(x) {
			return notYet("with %v %d numbers came, wanted %d", x, len(got), len(x))
		}
		matrix := kvq.Hadamard(len(x))
		length := [2]float64{}
		for i := range got {
			want := 0.0
			for j := range x {
				want += float64(matrix[i][j]) * x[j]
			}
			length[0], length[1] = length[0]+x[i]*x[i], length[1]+got[i]*got[i]
			if off := math.Abs(got[i] - want); !(off <= 1e-5*max(1, math.Abs(want))) {
				if i == 0 && math.Abs(got[0]-want*math.Sqrt(float64(len(x)))) < 1e-5 {
					return notYet("with %v number 1 is %.4g, wanted %.4g: too large by sqrt(%d), divide by it", x, got[i], want, len(x))
				}
				return notYet("with %v number %d is %.4g, wanted %.4g", x, i+1, got[i], want)
			}
		}
	}
	return right("the numbers, for lengths of 2, 4 and 8")
}
