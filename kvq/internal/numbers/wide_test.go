package numbers_test

import (
	"math"
	"testing"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/oracle"
	"github.com/kvqbook/kvqbook/internal/testlane"
	"github.com/kvqbook/kvqbook/kvq/internal/numbers"
)

// Groups around scales of 2^126, above which 1/scale is no normal number of float32: two bits reach
// them from a span of 2.55e38 on, codes without a zero point from 8.5e37 on.
var wideGroups = [][]float32{
	{0, 3e38, 1.5e38, 1e38},
	{0, 2.6e38, 1.3e38, 9e37},
	{0, 2.5e38, 1.3e38, 9e37},
	{-1.5e38, 1.5e38, 2e37, 1.1e38},
	{-1.6e38, 1.6e38, 0, -1e38},
	{-3e38, -1e37, -1.1e38, -2e38},
	{2e38, -2e38, 1e38, 7e37},
	{maxFloat, 0, 1e38, 2e38},
	{9e37, -9e37, 3e37, -8e37},
	{2e38, 1e38, inf, -1e38},
	{2e38, -1e38, 3e37, -inf},
	{1e38, nan, 9e37, -1.2e38},
	{3, -1, inf, 2},
	{3, -1, -inf, nan},
}

// Whatever the quantizer, the width, the dtype and the format of the scales: what comes back is
// finite; larger values have no smaller codes; what lies within the reach of the codes is at most a
// step off; infinities have the code of their end, NaN the lowest or that of 0.
func TestWideGroups(t *testing.T) {
	testlane.Slow(t, "compiles every quantizer")
	for _, dtype := range []dtypes.DType{dtypes.Float32, dtypes.BFloat16} {
		var specs []numbers.Spec
		for _, q := range numbers.Quantizers {
			for _, bits := range []int{2, 3} {
				for _, format := range []numbers.ScaleFormat{"", numbers.ScaleBFloat16} {
					s := numbers.Spec{Quantizer: q, Bits: bits, Scales: format, Keys: bits%2 == 0}
					if (q.Check == nil || q.Check(s) == nil) && (q.Packed() || bits == 2) {
						specs = append(specs, s)
					}
				}
			}
		}
		got := evaluate(t, func(xs []*Node) (out []*Node) {
			in := ConvertDType(xs[0], dtype)
			out = append(out, in)
			for _, s := range specs {
				codes, scales, zeros := s.Encode(in, 1, nil)
				scale, zero := s.ScaleAndZero(scales, zeros)
				if zero == nil {
					zero = ZerosLike(scale)
				}
				out = append(out, s.Numbers(codes), scale, zero, decoded(s, codes, scales, zeros))
			}
			return out
		}, wideGroups)
		x := got[0]
		for n, s := range specs {
			codes, scales, zeros, values := got[1+4*n], got[2+4*n], got[3+4*n], got[4+4*n]
			least, most := float32(0), float32(int(1)<<s.Bits-1)
			switch s.Quantizer {
			case numbers.Symmetric:
				least = 1
			case numbers.Float8:
				least, most = -448, 448
			case numbers.Int8:
				least, most = -127, 127
			}
			nothing := least
			if !s.Quantizer.Zeros {
				nothing = 0
				if s.Quantizer.Packed() {
					nothing = float32(s.Middle())
				}
			}
			for i, v := range x {
				group := i / 4 * 4
				step, zero := float64(scales[i/4]), float64(zeros[i/4])
				fail := func(what string) {
					t.Errorf("%s, %s, %d bits, scales %q: %v in %v has code %v, scale %v, zero %v, came back as %v: %s",
						s.Quantizer.Name, dtype, s.Bits, s.Scales, v, x[group:group+4], codes[i], step, zero, values[i], what)
				}
				if y := float64(values[i]); math.IsNaN(y) || math.IsInf(y, 0) {
					fail("not finite")
				}
				switch w := float64(v); {
				case math.IsNaN(w):
					if codes[i] != nothing {
						fail("NaN wants the lowest code, or that of 0")
					}
				case math.IsInf(w, 0):
					if want := map[bool]float32{true: most, false: least}[w > 0]; codes[i] != want {
						fail("an infinity wants the code of its end")
					}
				default:
					low, high := zero+step*float64(least), zero+step*float64(most)
					wide := step
					if s.Quantizer == numbers.Float8 {
						wide = math.Abs(w) / 8
					}
					if w >= low && w <= high && math.Abs(float64(values[i])-w) > wide*(1+1e-5)+math.Abs(w)*1e-6 {
						fail("more than a step off")
					}
				}
				for j := group; j < group+4; j++ {
					if x[j] > v && codes[j] < codes[i] {
						fail("a larger value has a smaller code")
					}
				}
			}
		}
	}
}

// Where quanto divides, we divide: at 2 bits and scales above 2^126 the codes are the oracle's.
func TestWideGroupsEqualTheOracle(t *testing.T) {
	for dtype, round := range map[dtypes.DType]oracle.Rounder{dtypes.Float32: oracle.Exact, dtypes.BFloat16: oracle.BFloat16} {
		got := evaluate(t, func(xs []*Node) []*Node {
			x := ConvertDType(xs[0], dtype)
			codes, scale, zero := quantizeMinMax(x, 1, 2, nil)
			return []*Node{x, codes, scale, zero}
		}, wideGroups)
		for i := range wideGroups {
			codes, scale, zero := oracle.MinMax(got[0][4*i:4*i+4], 2, round)
			var want []float32
			for _, c := range codes {
				want = append(want, float32(c))
			}
			requireSame(t, dtype.String()+" codes", want, got[1][4*i:4*i+4])
			requireSame(t, dtype.String()+" scale and zero", []float32{scale, zero}, []float32{got[2][i], got[3][i]})
		}
	}
}
