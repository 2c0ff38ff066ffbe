//go:build linux && cgo

package cpukernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
	"unsafe"

	"github.com/gomlx/compute/dtypes"

	"github.com/kvqbook/kvqbook/kvq/internal/attend"
	"github.com/kvqbook/kvqbook/kvq/internal/codes"
	"github.com/kvqbook/kvqbook/kvq/internal/kernel"
	"github.com/kvqbook/kvqbook/kvq/internal/numbers"
)

// benchCache is how a configuration of package kvq codes keys and values, and its exact slots.
type benchCache struct {
	name       string
	key, value func(dim int) codes.Format
	exact      int
}

func benchCaches() []benchCache {
	format := func(keys bool, q *numbers.Quantizer, bits, group int, scales numbers.ScaleFormat, perChannel, rotate, tokens bool) func(dim int) codes.Format {
		return func(dim int) codes.Format {
			f := codes.New(numbers.Spec{Quantizer: q, Bits: bits, Scales: scales, Keys: keys}, dim, group, perChannel, rotate)
			f.TokenScales = tokens
			return f
		}
	}
	tutorial := func(keys bool) func(dim int) codes.Format {
		return format(keys, numbers.MinMax, 4, 32, numbers.ScaleFloat32, false, false, false)
	}
	preset := func(name string, keyBits, keyGroup, valueBits int, scales numbers.ScaleFormat, tokens bool, exact int) benchCache {
		return benchCache{name,
			format(true, numbers.Unbiased, keyBits, keyGroup, scales, true, true, tokens),
			format(false, numbers.Unbiased, valueBits, 64, scales, false, true, false), exact}
	}
	return []benchCache{
		{"tutorial", tutorial(true), tutorial(false), 64},
		preset("balanced", 5, 64, 4, numbers.ScaleFloat16, false, 132),
		preset("smallest", 3, 64, 3, numbers.Scale8, true, 132),
		preset("lowest", 2, 32, 2, numbers.Scale8, true, 100),
	}
}

// BenchmarkAttend is attention of one layer by one thread: so many layers in turns that they do not
// stay in the processor's nearer caches. The time is that of a layer.
func BenchmarkAttend(b *testing.B) {
	defer useVectors(len(vectorNames))
	for _, shape := range []struct {
		name                string
		heads, queries, dim int
	}{{"SmolLM2", 3, 3, 64}, {"Llama-2-7B", 32, 1, 128}, {"Llama-3-8B", 8, 4, 128}} {
		for _, c := range benchCaches() {
			for _, tokens := range []int{512, 2048, 8192} {
				s := kernel.Shape{
					Key: c.key(shape.dim), Value: c.value(shape.dim), Batch: 1, Heads: shape.heads, Queries: shape.queries,
					Blocks: tokens / codes.BlockTokens, Exact: c.exact, CacheType: dtypes.Float32, QueryType: dtypes.Float32,
					Scores: attend.Scores{Scale: 1 / math.Sqrt(float64(shape.dim))},
				}
				layers := max(2, min(30, (64<<20)/(shape.heads*shape.dim*tokens)))
				b.Run(fmt.Sprintf("%s/%s/%d", shape.name, c.name, tokens), func(b *testing.B) {
					var list []*layer
					for i := range layers {
						list = append(list, benchLayer(b, s, uint64(i), int32(tokens)))
					}
					for i, name := range vectorNames {
						if useVectors(i) == i && (i > 0 || tokens == 512 && shape.name == "SmolLM2") {
							b.Run(name, func(b *testing.B) { timeLayers(b, list) })
						}
					}
				})
			}
		}
	}
}

// timeLayers reports the shortest and the median time of a layer.
func timeLayers(b *testing.B, list []*layer) {
	pieces := upwards(list[0].call.pieces)
	var times []time.Duration
	for b.Loop() {
		for _, l := range list {
			start := time.Now()
			for _, p := range pieces {
				l.call.piece(p)
			}
			l.call.merge()
			times = append(times, time.Since(start))
		}
	}
	slices.Sort(times)
	b.ReportMetric(float64(times[0].Nanoseconds())/1e3, "min-us")
	b.ReportMetric(float64(times[len(times)/2].Nanoseconds())/1e3, "median-us")
	b.ReportMetric(0, "ns/op")
}

// benchLayer is a layer whose slots are all in use, without the oracle's numbers.
func benchLayer(b *testing.B, s kernel.Shape, seed uint64, tokens int32) *layer {
	l := &layer{s: s, rng: rand.New(rand.NewPCG(seed, 3))}
	slots := s.Blocks * codes.BlockTokens
	index := func(n, from int) []int32 {
		list := make([]int32, n)
		for i := range list {
			list[i] = int32(from + i)
		}
		return list
	}
	some := func(n int, t dtypes.DType) unsafe.Pointer {
		_, at := floats(b, t, uniform(l.rng, n, -1, 1))
		return at
	}
	l.m = memory{
		query:    some(s.Heads*s.Queries*s.Key.HeadDim, s.QueryType),
		position: place(b, []int32{int32(slots + s.Exact - 1)}), used: place(b, []int32{tokens}),
		codeIndex: place(b, index(slots, 0)), exactIndex: place(b, index(s.Exact, slots)),
		exactKeys: some(s.Heads*s.Exact*s.Key.HeadDim, s.CacheType), exactValues: some(s.Heads*s.Exact*s.Value.HeadDim, s.CacheType),
		out: place(b, make([]float32, s.Heads*s.Queries*s.Value.HeadDim)),
	}
	arrays := func(f codes.Format) (at [4]unsafe.Pointer) {
		for i, a := range f.Arrays(1, s.Heads, slots, s.CacheType) {
			n := a.Shape.Size()
			if a.Shape.DType == dtypes.Uint8 {
				at[i] = place(b, l.bytes(n, 96))
			} else if i > 0 {
				at[i] = some(n, a.Shape.DType)
			} else {
				list := make([]uint32, n*a.Shape.DType.Size()/4)
				for i := range list {
					list[i] = l.rng.Uint32()
				}
				at[i] = place(b, list)
			}
		}
		return at
	}
	k, v := arrays(s.Key), arrays(s.Value)
	l.m.keyCodes, l.m.keyScales, l.m.keyZeros, l.m.keyTokens = k[0], k[1], k[2], k[3]
	l.m.valueCodes, l.m.valueScales, l.m.valueZeros = v[0], v[1], v[2]
	l.call = newDirect(s, l.m)
	b.Cleanup(l.call.free)
	return l
}
