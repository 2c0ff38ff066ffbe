package numbers_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/oracle"
	"github.com/kvqbook/kvqbook/kvq/internal/numbers"
)

// tokenScales evaluates [numbers.TokenScales] for groups of tokens [groups][G][D]: scales as they
// are stored and as numbers, the tokens in their units, who votes.
func tokenScales(t *testing.T, dtype dtypes.DType, groups ...[][]float32) (stored, scales, units, voting []float32) {
	t.Helper()
	got := evaluate(t, func(xs []*Node) []*Node {
		stored, units, voting := numbers.TokenScales(ConvertDType(xs[0], dtype), nil)
		return []*Node{stored, numbers.DecodeTokenScales(stored), units, ConvertDType(voting, dtypes.Float32)}
	}, groups)
	return got[0], got[1], got[2], got[3]
}

// Tokens 8, 4 and -1 times one another: the size of each is its factor, whatever the channels are.
// The largest is 1, so scales are 1, 1/2 and 1/8: exponents 9, 8 and 6 with the bias, times 16. A
// token of zeros has 0, and does not vote.
//
// Squares 1 1 / 1 9, by hand. Tokens: means 1, 5. Channels: (1/1 + 1/5)/2 = 0.6, (1/1 + 9/5)/2 =
// 1.4. Tokens: (1/0.6 + 1/1.4)/2 = 1.1905, (1/0.6 + 9/1.4)/2 = 4.0476. Channels: 0.54353, 1.53176.
// Tokens: 1.24633, 3.85765. The root of their quotient is 0.5684 = 2^-1·(1 + 2.19/16): byte 8·16 +
// 2.
func TestTokenScalesByHand(t *testing.T) {
	stored, scales, units, voting := tokenScales(t, dtypes.Float32,
		[][]float32{{8, -24, 0.5}, {4, -12, 0.25}, {-1, 3, -0.0625}, {0, 0, 0}})
	requireSame(t, "bytes", []float32{144, 128, 96, 0}, stored)
	requireSame(t, "scales", []float32{1, 0.5, 0.125, 0}, scales)
	requireSame(t, "units", []float32{8, -24, 0.5, 8, -24, 0.5, -8, 24, -0.5, 0, 0, 0}, units)
	requireSame(t, "votes", []float32{1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0}, voting)

	stored, _, units, _ = tokenScales(t, dtypes.Float32, [][]float32{{1, -1}, {1, 3}})
	requireSame(t, "bytes", []float32{130, 144}, stored)
	requireSame(t, "units", []float32{1 / 0.5625, -1 / 0.5625, 1, 3}, units)
}

// Scales are the oracle's but where they lie at the middle between two bytes; in all dtypes.
func TestTokenScalesEqualTheOracle(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	for _, dtype := range []dtypes.DType{dtypes.Float32, dtypes.BFloat16} {
		groups := make([][][]float32, 12)
		for i := range groups {
			for range 32 {
				token, loud := make([]float32, 48), math.Exp(random.NormFloat64()*float64(i)/4)
				for c := range token {
					token[c] = oracle.BFloat16(float32((random.NormFloat64() + float64(c%5)) * loud * math.Ldexp(1, c%4+10*i-60)))
				}
				groups[i] = append(groups[i], token)
			}
		}
		_, scales, units, _ := tokenScales(t, dtype, groups...)
		for i, group := range groups {
			for j, want := range oracle.TokenScales(group) {
				got := scales[32*i+j]
				if got != want {
					t.Errorf("%s, group %d, token %d: scale %v, the oracle has %v", dtype, i, j, got, want)
				}
				for c, x := range group[j] {
					if back := float64(units[(32*i+j)*48+c] * got); got > 0 && math.Abs(back-float64(x)) > 1e-6*math.Abs(float64(x)) {
						t.Errorf("%s, group %d, token %d: %v became %v units of %v", dtype, i, j, x, units[(32*i+j)*48+c], got)
					}
				}
			}
		}
	}
}

// Whatever comes, scales are from 0 to 1, what was finite stays finite, and of what was not nothing
// reaches another token.
func TestTokenScalesOfAnything(t *testing.T) {
	calm := []float32{1, -2, 3, 4}
	groups := [][][]float32{
		{calm, {nan, 1, 2, 3}, {inf, 1, -inf, 3}, {nan, inf, -inf, nan}},
		{calm, {maxFloat, -maxFloat, maxFloat, 1}, {1, 1, 1, 1}, {0, 0, 0, 0}},
		{{1e-40, 0, 0, 1e-40}, {0, 0, 0, 0}, {0, 0, 0, 0}, {0, 0, 0, 0}},
		{{0, 0, 0, 1e-30}, {1e30, 0, 0, 0}, calm, calm},
		{{7, 7, 7, 7}, {7, 7, 7, 7}, {7, 7, 7, 7}, {7, 7, 7, 7}},
		{calm, calm, calm, calm},
	}
	_, scales, units, voting := tokenScales(t, dtypes.Float32, groups...)
	for i, x := range scales {
		if !(x >= 0 && x <= 1) {
			t.Errorf("token %v has scale %v", groups[i/4][i%4], x)
		}
		for c, v := range groups[i/4][i%4] {
			got := float64(units[4*i+c])
			finite := !math.IsNaN(float64(v)) && !math.IsInf(float64(v), 0)
			if finite == (math.IsNaN(got) || math.IsInf(got, 0)) {
				t.Errorf("%v in %v became %v", v, groups[i/4][i%4], got)
			}
			if want := x > 0; (voting[4*i+c] == 1) != want {
				t.Errorf("token %v of scale %v votes: %v", groups[i/4][i%4], x, !want)
			}
		}
	}
	requireSame(t, "equal tokens", []float32{1, 1, 1, 1, 1, 1, 1, 1}, scales[16:])
}

// Where tokens differ in size, groups along tokens lose less with a scale for each; where they do
// not, they lose nothing by it.
func TestTokenScalesLowerTheError(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 8))
	const tokens, channels = 32, 64
	for _, c := range []struct {
		name        string
		loud        func(token int) float64
		least, most float64 // of the mean squared error without
	}{
		{"a token ten times as large", func(i int) float64 { return map[bool]float64{true: 10, false: 1}[i == 9] }, 0, 0.25},
		{"sizes from 1 to 4", func(i int) float64 { return 1 + 3*float64(i)/(tokens-1) }, 0, 0.75},
		{"all alike", func(int) float64 { return 1 }, 0.9, 1.05},
	} {
		for _, q := range []*numbers.Quantizer{numbers.MinMax, numbers.Unbiased} {
			group := make([][]float32, tokens)
			for i := range group {
				for range channels {
					group[i] = append(group[i], float32(random.NormFloat64()*c.loud(i)))
				}
			}
			spec := numbers.Spec{Quantizer: q, Bits: 2, Scales: numbers.Scale8, Keys: true}
			got := evaluate(t, func(xs []*Node) []*Node {
				codes, scales, zeros := spec.Encode(xs[0], 1, nil)
				plain := decoded(spec, codes, scales, zeros)
				stored, units, voting := numbers.TokenScales(xs[0], nil)
				codes, scales, zeros = spec.Encode(units, 1, voting)
				return []*Node{plain, decoded(spec, codes, scales, zeros), numbers.DecodeTokenScales(stored)}
			}, [][][]float32{group})
			// each token's error relative to its size: what attention sees of it
			var without, with float64
			for i, token := range group {
				for d, x := range token {
					at := i*channels + d
					without += math.Pow((float64(got[0][at])-float64(x))/c.loud(i), 2)
					with += math.Pow((float64(got[1][at]*got[2][i])-float64(x))/c.loud(i), 2)
				}
			}
			if ratio := with / without; !(ratio >= c.least && ratio <= c.most) {
				t.Errorf("%s: %s", c.name, fmt.Sprintf("%s keeps %.3f of the error, want %.2f to %.2f", q.Name, ratio, c.least, c.most))
			}
		}
	}
}
