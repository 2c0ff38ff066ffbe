package exercise

import (
	"fmt"
	"math"
	"slices"

	"github.com/gomlx/compute"

	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/notebooks/nb"
)

// BitsPerValue checks the bits that a number takes in a cache: its code, and its share of a scale
// and a zero point of scaleBits bits each.
func BitsPerValue(answer func(bits, group, scaleBits int) float64) Verdict {
	var trials []trial
	for _, c := range []struct {
		bits, group, scaleBits int
		want                   float64 // as kvq's own Plan.BitsPerValue has it, tested
	}{{4, 32, 16, 5}, {4, 32, 32, 6}, {2, 32, 16, 3}, {8, 64, 16, 8.5}, {2, 64, 16, 2.5}} {
		trials = append(trials, trial{
			fmt.Sprintf("with %d bits, groups of %d and scales of %d bits", c.bits, c.group, c.scaleBits),
			func() float64 { return answer(c.bits, c.group, c.scaleBits) }, c.want})
	}
	return judge("the cost of a number in bits", 1e-9, trials...)
}

// ThereAndBack checks that numbers come back from codes within half a step, and use no more codes
// than there are.
func ThereAndBack(answer func(group []float64, bits int) []float64) Verdict {
	groups := [][]float64{{0.31, -2.2, 1.7, 0.02, 5.1, -0.6, 3.3, 1.1}, {-4, -3.5, -1, -0.25}}
	for _, group := range groups {
		for _, bits := range []int{2, 3, 4, 8} {
			got, panicked := attempt(func() []float64 { return answer(slices.Clone(group), bits) })
			where := fmt.Sprintf("with %d bits and the group %v", bits, group)
			if panicked != "" {
				return notYet("%s your function panicked: %s", where, panicked)
			}
			if len(got) != len(group) {
				return notYet("%s %d numbers came back, wanted %d", where, len(got), len(group))
			}
			low := slices.Min(group)
			step := (slices.Max(group) - low) / float64(int(1)<<bits-1)
			for i, x := range group {
				if off := math.Abs(got[i] - x); !(off <= step/2+1e-9) {
					return notYet("%s %.3g came back as %.3g: off by %.3g, half a step is %.3g", where, x, got[i], off, step/2)
				}
			}
			for i, x := range group {
				if steps := (got[i] - low) / step; math.Abs(steps-math.Round(steps)) > 1e-6 {
					return notYet("%s %.3g came back as %.4g, which is no code: codes lie %.3g apart from %.3g on", where, x, got[i], step, low)
				}
			}
		}
	}
	return right("every number comes back within half a step, with 2, 3, 4 and 8 bits")
}

// TokensInCodes checks transformers' policy: how many tokens of a row are in codes after a prompt
// and so many tokens fed one by one.
func TokensInCodes(answer func(prompt, fed, residual int) int) Verdict {
	var trials []trial
	for _, c := range tokensInCodes {
		trials = append(trials, trial{
			fmt.Sprintf("with a prompt of %d, %d new tokens and a residual of %d", c.prompt, c.fed, c.residual),
			func() float64 { return float64(answer(c.prompt, c.fed, c.residual)) }, float64(c.want)})
	}
	return judge("the number of tokens in codes", 0, trials...)
}

// What a real cache holds ([nb.Life]), tested.
var tokensInCodes = []struct{ prompt, fed, residual, want int }{
	{9, 19, 64, 9}, {9, 139, 64, 137}, {9, 16, 8, 17}, {30, 17, 8, 46}, {5, 8, 8, 5},
}

// TestsItsCache checks, in a real cache, that a configuration codes tokens that were generated: of
// newTokens, all but the last are fed back to the model.
func TestsItsCache(backend compute.Backend, config kvq.Config, prompt, newTokens int) Verdict {
	if !config.Quantized() {
		return notYet("this configuration is full precision: nothing is in codes")
	}
	end := nb.Life(backend, config, prompt, newTokens-1)[newTokens-1]
	if generated := end.Coded - prompt; generated > 0 {
		return right("%d generated tokens are in codes", generated)
	}
	return notYet("%d of the prompt's %d tokens are in codes and no generated one: all %d new ones wait in the window", min(end.Coded, prompt), prompt, newTokens-1)
}
