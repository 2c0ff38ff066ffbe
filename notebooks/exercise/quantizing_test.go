package exercise

import (
	"math"
	"slices"
	"testing"

	"github.com/kvqbook/kvqbook/notebooks/solutions"
)

func TestCodeOf(t *testing.T) {
	free := func(x, low, step float64, _ int) int { return int(math.RoundToEven((x - low) / step)) }
	cut := func(x, low, step float64, bits int) int {
		if step == 0 {
			return 0
		}
		return min(max(int((x-low)/step), 0), 1<<bits-1)
	}
	tell(t,
		tried{"solution", CodeOf(solutions.CodeOf), ""},
		tried{"codes that there are not", CodeOf(free), "with x = -5, low = -1.7, step = 0.4 and 4 bits the code is -8, wanted 0"},
		tried{"cut off", CodeOf(cut), "with x = 1, low = -1.7, step = 0.4 and 4 bits the code is 6, wanted 7"},
		tried{"one code too many", CodeOf(func(x, low, step float64, bits int) int { return min(solutions.CodeOf(x, low, step, bits+1), 1<<bits) }), "with x = 99"},
		tried{"stub", CodeOf(func(float64, float64, float64, int) int { return 0 }), "is 0, wanted 15"},
	)
}

func TestPacked(t *testing.T) {
	backward := func(codes []int, bits int) uint32 {
		slices.Reverse(codes)
		return solutions.Packed(codes, bits)
	}
	tell(t,
		tried{"solution", Packed(solutions.Packed), ""},
		tried{"the first in the highest bits", Packed(backward), "with codes [1 2] of 4 bits the word is 0x12, wanted 0x21. 1 of 6"},
		tried{"always 4 bits", Packed(func(c []int, _ int) uint32 { return solutions.Packed(c, 4) }), "with codes [3 0 1] of 2 bits"},
		tried{"stub", Packed(func([]int, int) uint32 { return 0 }), "the word is 0x0, wanted 0x5"},
		tried{"panics", Packed(func(c []int, _ int) uint32 { return uint32(c[len(c)]) }), "panicked"},
	)
}

func TestOutlierChannels(t *testing.T) {
	signed := func(keys [][]float64, factor float64) (out []int) {
		for d := range keys[0] {
			for _, row := range keys {
				if row[d] > factor {
					out = append(out, d)
					break
				}
			}
		}
		return out
	}
	tell(t,
		tried{"solution", OutlierChannels(solutions.OutlierChannels), ""},
		tried{"in another order", OutlierChannels(func(k [][]float64, f float64) []int {
			out := solutions.OutlierChannels(k, f)
			slices.Reverse(out)
			return out
		}), ""},
		tried{"signs forgotten", OutlierChannels(signed), "with channel 4 far below 0 and factor 4 the channels are [], wanted [4]"},
		tried{"a factor too small", OutlierChannels(func(k [][]float64, _ float64) []int { return solutions.OutlierChannels(k, 0.5) }), "with no channel larger"},
		tried{"stub", OutlierChannels(func([][]float64, float64) []int { return nil }), "wanted [4]"},
	)
}

func TestRotated(t *testing.T) {
	long := func(x []float64) []float64 {
		y := solutions.Rotated(slices.Clone(x))
		for i := range y {
			y[i] *= math.Sqrt(float64(len(x)))
		}
		return y
	}
	tell(t,
		tried{"solution", Rotated(solutions.Rotated), ""},
		tried{"not divided", Rotated(long), "too large by sqrt(2), divide by it"},
		tried{"pairs of neighbours alone", Rotated(func(x []float64) []float64 {
			for i := 0; i < len(x); i += 2 {
				x[i], x[i+1] = (x[i]+x[i+1])/math.Sqrt2, (x[i]-x[i+1])/math.Sqrt2
			}
			return x
		}), "with [1 2 3 4] number 1 is 2.121, wanted 5"},
		tried{"stub", Rotated(func(x []float64) []float64 { return x }), "with [3 4] number 1 is 3, wanted 4.95"},
		tried{"nothing", Rotated(func([]float64) []float64 { return nil }), "0 numbers came"},
	)
}
