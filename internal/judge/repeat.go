// Package judge has the measures by which a cache is judged on what a model writes through it:
// repetition, where two texts part, and error bars. It knows no model.
package judge

// Repeated is the share of runs of n tokens that stand in the text before, overlaps included: 0 for
// a text that never repeats one, near 1 for a loop. 0 for a text without such a run.
func Repeated(text []int32, n int) float64 {
	runs := len(text) - n + 1
	if runs < 1 {
		return 0
	}
	seen, again := map[string]bool{}, 0
	name := make([]byte, 0, 4*n)
	for i := range runs {
		name = name[:0]
		for _, t := range text[i : i+n] {
			name = append(name, byte(t), byte(t>>8), byte(t>>16), byte(t>>24))
		}
		if seen[string(name)] {
			again++
		}
		seen[string(name)] = true
	}
	return float64(again) / float64(runs)
}

// LongestRepeat is how many tokens the longest part of a text has that begins anew later in it; the
// two may overlap, so that a loop counts up to its end.
func LongestRepeat(text []int32) int {
	longest := 0
	// common[j] is how long the parts that end at i and at j are equal.
	common := make([]int, len(text)+1)
	for i := range text {
		for j := i; j >= 1; j-- { // the part that ends at j-1, before i; from the back: j-1 is of the row before
			if text[i] == text[j-1] {
				common[j] = common[j-1] + 1
				longest = max(longest, common[j])
			} else {
				common[j] = 0
			}
		}
	}
	return longest
}

// Parting is the first place where two texts differ; the length of the shorter one where they do
// not.
func Parting(a, b []int32) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}
