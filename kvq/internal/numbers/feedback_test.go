package numbers_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/oracle"
	"github.com/kvqbook/kvqbook/kvq/internal/numbers"
)

// Two channels of two tokens, codes 0..3 of scale 1 and zero point 0, and the metric
//
//	M = | 1.5 1 | + damping 0.5 on the diagonal: | 2 1 |,  L_10 = 1/2
//	    | 1 0.5 |   (its mean diagonal is 1)       | 1 1 |
//
//	token 1.4 1.4: channel 1 -> 1, error 0.4; channel 0 at 1.4 + 0.4/2 = 1.6 -> 2. Alone it is 1.
//	token 2.6 0.75: channel 1 -> 1, error -0.25; channel 0 at 2.6 - 0.25/2 = 2.475 -> 2. Alone it is 3.
//	token 0.5 9: channel 1 -> 3, error 6; channel 0 at 0.5 + 3 -> 3, the last code.
func TestFeedbackByHand(t *testing.T) {
	got := evaluate(t, func(xs []*Node) []*Node {
		x, metric := Reshape(xs[0], 1, 1, 3, 2), Reshape(xs[1], 1, 1, 2, 2)
		factor := numbers.Factor(metric, gx.Fill(x.Graph(), shapes.Make(dtypes.Float32, 1, 1, 1, 1), 0.5))
		return []*Node{factor, numbers.Feedback(x, gx.OnesLike(x), gx.ZerosLike(x), nil, factor, 2)}
	}, [][]float32{{1.4, 1.4}, {2.6, 0.75}, {0.5, 9}}, [][]float32{{1.5, 1}, {1, 0.5}})
	requireSame(t, "factor", []float32{0, 0, 0.5, 0}, got[0])
	requireSame(t, "codes", []float32{2, 1, 2, 1, 3, 3}, got[1])
}

// Codes of an unbiased range stand for intervals that are narrower than their values lie apart,
// about the same middle, here 1.5: scale 1.2 and zero point -0.3 give the values -0.3 0.9 2.1 3.3,
// and with width 1 code c stands for what lies nearest to c.
//
//	token 2.4 0.4: channel 1 -> 0 (0.9 is nearer), error 0.7; channel 0 at 2.4 + 0.7/2 = 2.75 -> 3
func TestFeedbackWithWidth(t *testing.T) {
	got := evaluate(t, func(xs []*Node) []*Node {
		x := Reshape(xs[0], 1, 1, 1, 2)
		each := func(v float64) *Node { return gx.Fill(x.Graph(), x.Shape(), v) }
		return []*Node{numbers.Feedback(x, each(1.2), each(-0.3), each(1), Reshape(xs[1], 1, 1, 2, 2), 2)}
	}, [][]float32{{2.4, 0.4}}, [][]float32{{0, 0}, {0.5, 0}})
	requireSame(t, "codes", []float32{3, 0}, got[0])
}

// correlated are tokens of dim channels and queries that share few directions, from a seed.
func correlated(seed uint64, tokens, dim int) (x [][]float32, metric [][]float32) {
	random := rand.New(rand.NewPCG(seed, uint64(dim)))
	metric = make([][]float32, dim)
	for i := range metric {
		metric[i] = make([]float32, dim)
	}
	directions := make([][]float64, 1+dim/4)
	for i := range directions {
		for range dim {
			directions[i] = append(directions[i], random.NormFloat64())
		}
	}
	for range 3 * dim {
		q := make([]float64, dim)
		for _, direction := range directions {
			for d, weight := 0, random.NormFloat64(); d < dim; d++ {
				q[d] += weight * direction[d]
			}
		}
		for i := range dim {
			for j := range dim {
				metric[i][j] += float32((q[i] + 0.1) * (q[j] + 0.1))
			}
		}
	}
	for range tokens {
		token := make([]float32, dim)
		for d := range token {
			token[d] = float32(random.NormFloat64() * float64(1+d%3))
		}
		x = append(x, token)
	}
	return x, metric
}

// feedbackOf codes tokens per channel with min-max ranges: codes alone and with feedback, scales
// and zero points of the channels, and the damped metric that the factor was made of.
func feedbackOf(t *testing.T, x, metric [][]float32, bits int, damping float64) (alone, fed, scale, zero []float32, damped [][]float64) {
	t.Helper()
	n, dim := len(x), len(x[0])
	got := evaluate(t, func(xs []*Node) []*Node {
		codes, scale, zero := quantizeMinMax(xs[0], 0, bits, nil)
		wide := func(x *Node) *Node { return Reshape(gx.BroadcastToDims(x, n, dim), 1, 1, n, dim) }
		factor := numbers.Factor(Reshape(xs[1], 1, 1, dim, dim), gx.Fill(scale.Graph(), shapes.Make(dtypes.Float32, 1, 1, 1, 1), damping))
		return []*Node{codes, numbers.Feedback(wide(xs[0]), wide(scale), wide(zero), nil, factor, bits), scale, zero}
	}, x, metric)
	mean := 0.0
	for i := range dim {
		mean += float64(metric[i][i]) / float64(dim)
	}
	for i := range dim {
		damped = append(damped, make([]float64, dim))
		for j := range dim {
			damped[i][j] = float64(metric[i][j]) / mean
		}
		damped[i][i] += damping
	}
	return got[0], got[1], got[2], got[3], damped
}

// The oracle derives each value from the least of the quadratic form. And what the rounding is
// for: the errors cost less than those of codes that were rounded alone.
func TestFeedbackEqualsOracle(t *testing.T) {
	for _, c := range []struct{ bits, dim int }{{2, 32}, {3, 20}, {4, 7}} {
		t.Run(fmt.Sprintf("%d bit, %d channels", c.bits, c.dim), func(t *testing.T) {
			const tokens, damping = 64, 0.1
			x, metric := correlated(5, tokens, c.dim)
			alone, fed, scale, zero, damped := feedbackOf(t, x, metric, c.bits, damping)
			scales, zeros := wideOf(scale), wideOf(zero)
			var costAlone, costFed float64
			compared := 0
			for i, token := range x {
				want, near := oracle.Feedback(wideOf(token), scales, zeros, damped, c.bits)
				at := fed[i*c.dim : (i+1)*c.dim]
				costAlone += cost(token, alone[i*c.dim:], scales, zeros, damped)
				costFed += cost(token, at, scales, zeros, damped)
				if near < 1e-4 { // rounding of sums decides
					continue
				}
				compared++
				for d, code := range want {
					if float32(code) != at[d] {
						t.Fatalf("token %d, channel %d: code %v, the oracle has %d", i, d, at[d], code)
					}
				}
			}
			if compared < tokens*9/10 {
				t.Errorf("%d of %d tokens could be compared", compared, tokens)
			}
			if costFed > 0.8*costAlone {
				t.Errorf("errors cost %.3g with feedback and %.3g without, wanted a fifth less at least", costFed, costAlone)
			}
		})
	}
}

func wideOf(x []float32) []float64 {
	out := make([]float64, len(x))
	for i, v := range x {
		out[i] = float64(v)
	}
	return out
}

// cost is eᵀ·M·e of a token's errors.
func cost(x, codes []float32, scale, zero []float64, metric [][]float64) (sum float64) {
	errors := make([]float64, len(x))
	for d := range x {
		errors[d] = float64(x[d]) - (scale[d]*float64(codes[d]) + zero[d])
	}
	for i := range errors {
		for j := range errors {
			sum += errors[i] * metric[i][j] * errors[j]
		}
	}
	return sum
}

// With a metric in which channels do not touch each other, codes are those rounded alone, bit for
// bit.
func TestFeedbackOfNothing(t *testing.T) {
	const dim = 20
	x, metric := correlated(6, 64, dim)
	for i := range dim {
		for j := range dim {
			if i != j {
				metric[i][j] = 0
			}
		}
	}
	for _, bits := range []int{2, 4, 8} {
		alone, fed, _, _, _ := feedbackOf(t, x, metric, bits, 0.1)
		requireSame(t, fmt.Sprintf("%d bit: codes", bits), alone, fed)
	}
}

// A metric of nothing, of NaN or of infinities feeds nothing back; values that are not finite do
// not spoil the channels beside them.
func TestFeedbackOfOddNumbers(t *testing.T) {
	const dim = 4
	metrics := make([]float32, 0, 3*dim*dim)
	for _, value := range []float32{0, nan, inf} {
		for range dim * dim {
			metrics = append(metrics, value)
		}
	}
	got := evaluate(t, func(xs []*Node) []*Node {
		return []*Node{numbers.Factor(Reshape(xs[0], 3, 1, dim, dim), gx.Fill(xs[0].Graph(), shapes.Make(dtypes.Float32, 3, 1, 1, 1), 0.1))}
	}, metrics)
	requireSame(t, "factors", make([]float32, len(metrics)), got[0])

	x := [][]float32{{0.4, nan, 1, inf}, {0.4, -inf, 1, 2}, {maxFloat, -maxFloat, maxFloat, -maxFloat}}
	made := evaluate(t, func(xs []*Node) []*Node {
		x := Reshape(xs[0], 1, 1, 3, dim)
		factor := gx.Fill(x.Graph(), shapes.Make(dtypes.Float32, 1, 1, dim, dim), 100)
		return []*Node{numbers.Feedback(x, gx.OnesLike(x), gx.ZerosLike(x), nil, factor, 2)}
	}, x)
	requireSame(t, "codes", []float32{0, 0, 1, 3, 0, 0, 1, 2, 3, 0, 3, 0}, made[0])
}
