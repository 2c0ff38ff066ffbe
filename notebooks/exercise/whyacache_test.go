package exercise

import (
	"math"
	"testing"

	"github.com/kvqbook/kvqbook/notebooks/solutions"
)

func TestAttentionWeights(t *testing.T) {
	unscaled := func(q []float64, keys [][]float64) []float64 {
		long := make([]float64, len(q))
		for i := range q {
			long[i] = q[i] * math.Sqrt(float64(len(q)))
		}
		return solutions.AttentionWeights(long, keys)
	}
	naive := func(q []float64, keys [][]float64) []float64 {
		out, sum := make([]float64, len(keys)), 0.0
		for i, k := range keys {
			for d := range q {
				out[i] += q[d] * k[d]
			}
			out[i] = math.Exp(out[i] / math.Sqrt(float64(len(q))))
			sum += out[i]
		}
		for i := range out {
			out[i] /= sum
		}
		return out
	}
	tell(t,
		tried{"solution", AttentionWeights(solutions.AttentionWeights), ""},
		tried{"not divided by sqrt(D)", AttentionWeights(unscaled), "with three keys of 2 numbers weight 1 is"},
		tried{"exponentials without bounds", AttentionWeights(naive), "with keys so long that exp(score) is infinite weight 1 is NaN"},
		tried{"stub", AttentionWeights(func(_ []float64, keys [][]float64) []float64 { return make([]float64, len(keys)) }), "weight 1 is 0, wanted 0.5"},
		tried{"nothing", AttentionWeights(func([]float64, [][]float64) []float64 { return nil }), "0 weights came, wanted 2"},
		tried{"panics", AttentionWeights(func(q []float64, k [][]float64) []float64 { return k[len(k)] }), "panicked"},
	)
}

func TestKeysComputed(t *testing.T) {
	tell(t,
		tried{"solution", KeysComputed(solutions.KeysComputed), ""},
		tried{"the last token too", KeysComputed(func(p, n int, c bool) int { return solutions.KeysComputed(p, n+1, c) }), "with a cache, the number of keys is 29, wanted 28 (off by 1)"},
		tried{"always a cache", KeysComputed(func(p, n int, _ bool) int { return p + n - 1 }), "without a cache, the number of keys is 28, wanted 370"},
		tried{"stub", KeysComputed(func(int, int, bool) int { return 0 }), "0 of 6"},
	)
}

func TestBytesPerToken(t *testing.T) {
	tell(t,
		tried{"solution", BytesPerToken(solutions.BytesPerToken), ""},
		tried{"keys without values", BytesPerToken(func(l, k, d, b int) int { return l * k * d * b }), "is 262144, wanted 524288"},
		tried{"stub", BytesPerToken(func(int, int, int, int) int { return 0 }), "with Llama-2-7B in 16-bit floats"},
	)
}

func TestSequences(t *testing.T) {
	tell(t,
		tried{"solution", Sequences(solutions.Sequences), ""},
		tried{"weights forgotten", Sequences(func(m, _, p int64, n int) int { return int(m / (p * int64(n))) }), "is 11, wanted 4"},
		tried{"rounded", Sequences(func(m, w, p int64, n int) int { return int(math.Round(float64(m-w) / float64(p*int64(n)))) }), "is 5, wanted 4 (off by 1)"},
		tried{"negative", Sequences(func(m, w, p int64, n int) int { return int((m - w) / (p * int64(n))) }), "less memory than the weights need"},
		tried{"stub", Sequences(func(int64, int64, int64, int) int { return 0 }), "wanted 4"},
	)
}
