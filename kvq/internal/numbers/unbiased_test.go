package numbers_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/testlane"
	"github.com/kvqbook/kvqbook/kvq/internal/numbers"
)

// moments returns the slope of the regression of y on x, and the mean squared error.
func moments(x, y []float32) (slope, wrong float64) {
	var mx, my, xx, xy float64
	for i := range x {
		mx += float64(x[i]) / float64(len(x))
		my += float64(y[i]) / float64(len(x))
		wrong += math.Pow(float64(x[i]-y[i]), 2) / float64(len(x))
	}
	for i := range x {
		xx += math.Pow(float64(x[i])-mx, 2)
		xy += (float64(x[i]) - mx) * (float64(y[i]) - my)
	}
	return xy / xx, wrong
}

// The decoded group varies with the original one for one, where a least-squares range shrinks it;
// and it is nearer than with minimum and maximum.
func TestUnbiasedRangeHasSlopeOne(t *testing.T) {
	x := groupsForTest(32)
	got := evaluate(t, func(xs []*Node) []*Node {
		codes, scale, zero := quantizeUnbiased(xs[0], 1, 2, nil, numbers.ScaleFloat32, false)
		plainCodes, plainScale, plainZero := quantizeMinMax(xs[0], 1, 2, nil)
		fitCodes, fitScale, fitZero := quantizeStored(xs[0], 1, 2, nil, numbers.ScaleFloat32, numbers.LeastSquares)
		return []*Node{dequantizeStored(codes, scale, zero, 2, numbers.ScaleFloat32), dequantize(plainCodes, plainScale, plainZero),
			dequantizeStored(fitCodes, fitScale, fitZero, 2, numbers.ScaleFloat32)}
	}, x)
	var unbiased, minMax, bias float64
	n := 0
	for i, group := range x {
		at := func(values []float32) []float32 { return values[i*32 : (i+1)*32] }
		slope, wrong := moments(group, at(got[0]))
		if math.IsNaN(slope) || math.IsInf(slope, 0) {
			continue // a constant group: TestNeverNaN and TestConstantGroupsAreExact look at those
		}
		_, plain := moments(group, at(got[1]))
		fit, _ := moments(group, at(got[2]))
		if i%5 == 2 {
			// one value thirty times the others: the gain that would be needed is beyond its limit
			continue
		}
		spread := float64(largestOf(group)) * float64(largestOf(group))
		if spread == 0 || spread > 1e12 || spread < 1e-12 {
			continue
		}
		if math.Abs(slope-1) > 1e-3 && slope != 0 {
			t.Errorf("group %d: the decoded values follow the original ones with slope %.4f, want 1", i, slope)
		}
		unbiased, minMax, bias, n = unbiased+wrong/spread, minMax+plain/spread, bias+1-fit, n+1
	}
	if n < 4 {
		t.Fatalf("only %d groups of ordinary numbers to look at", n)
	}
	if unbiased >= minMax {
		t.Errorf("mean squared error %.5f of the squared peak, minimum and maximum give %.5f: the search gained nothing", unbiased/float64(n), minMax/float64(n))
	}
	if bias <= 0 {
		t.Errorf("least squares shrank groups by %.4f on average: the reason for quantizeUnbiased is gone", bias/float64(n))
	}
}

func TestUnbiasedNeverNaN(t *testing.T) {
	x := [][]float32{{1, 1, 1, 1}, {0, 0, 0, 0}, {3e38, -3e38, 1, 2}, {1e-40, 2e-40, 0, 1e-39}, {nan, 1, 2, 3}, {inf, 1, -inf, 3}, {nan, nan, nan, nan}, {1, 2, 3, 4}}
	type how struct {
		bits   int
		format numbers.ScaleFormat
	}
	var all []how
	for _, bits := range allBits {
		for _, format := range []numbers.ScaleFormat{numbers.ScaleFloat32, numbers.ScaleFloat16, numbers.Scale8} {
			all = append(all, how{bits, format})
		}
	}
	values := evaluate(t, func(xs []*Node) (out []*Node) {
		for _, h := range all {
			codes, scale, zero := quantizeUnbiased(xs[0], 1, h.bits, nil, h.format, true)
			out = append(out, dequantizeStored(codes, scale, zero, h.bits, h.format))
		}
		return out
	}, x)
	for n, h := range all {
		for i, v := range values[n] {
			if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
				t.Errorf("%d bits, %s: %v in %v came back as %v", h.bits, h.format, x[i/4][i%4], x[i/4], v)
			}
			if i < 4 && h.format == numbers.ScaleFloat32 && v != 1 {
				t.Errorf("%d bits: the constant 1 came back as %v", h.bits, v)
			}
		}
	}
}

// A GPU tries all candidates at once, a CPU one after the other. Both find the best ones, along any
// axis.
func TestBestCostsBothWays(t *testing.T) {
	x := groupsForTest(32)
	for _, bits := range []int{2, 3, 4} {
		got := evaluate(t, func(xs []*Node) (out []*Node) {
			for _, shape := range [][]int{{len(x), 32}, {1, 1, len(x), 1, 32}, {1, len(x), 32}} {
				last := len(shape) - 1
				atOnce, inTurn := numbers.BestCosts(Reshape(xs[0], shape...), last, bits, bits == 3)
				turnedAtOnce, turnedInTurn := numbers.BestCosts(Transpose(Reshape(xs[0], shape...), -1, -2), last-1, bits, bits == 3)
				for _, cost := range []*Node{atOnce, inTurn, turnedAtOnce, turnedInTurn} {
					out = append(out, Reshape(cost, len(x)))
				}
			}
			return out
		}, x)
		for way, costs := range got {
			for i, cost := range costs {
				if want := got[0][i]; math.Abs(float64(cost-want)) > 1e-4*float64(want)+1e-12 {
					t.Errorf("%d bits, way %d, group %d: cost %v, want %v", bits, way, i, cost, want)
				}
			}
		}
	}
}

// At every width that has cuts, and for groups of all usual sizes, ordinary numbers keep how much
// they vary. Codes of 1 bit lose some of it, where the gain that the deeper cut wants is beyond its
// limit, but not a third.
func TestUnbiasedSlopeOfEveryWidth(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, size := range []int{64, 32, 128} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			if size != 64 {
				testlane.Slow(t, "compiles four widths")
			}
			x := make([][]float32, 64)
			for i := range x {
				x[i] = make([]float32, size)
				for j := range x[i] {
					x[i][j] = float32(rng.NormFloat64())
				}
			}
			const widths = 4
			decoded := evaluate(t, func(xs []*Node) (out []*Node) {
				for bits := 1; bits <= widths; bits++ {
					codes, scale, zero := quantizeUnbiased(xs[0], 1, bits, nil, numbers.ScaleFloat32, bits%2 == 0)
					out = append(out, dequantizeStored(codes, scale, zero, bits, numbers.ScaleFloat32))
				}
				return out
			}, x)
			for bits := 1; bits <= widths; bits++ {
				mean := 0.0
				for i, group := range x {
					slope, _ := moments(group, decoded[bits-1][i*size:(i+1)*size])
					mean += slope / float64(len(x))
				}
				tolerance := 0.02
				if bits == 1 {
					tolerance = 0.15
				}
				if math.Abs(mean-1) > tolerance {
					t.Errorf("%d bits, groups of %d: slope %.3f on average, want 1 within %g", bits, size, mean, tolerance)
				}
			}
		})
	}
}
