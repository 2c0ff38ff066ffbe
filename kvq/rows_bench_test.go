package kvq_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/kvq"
)

// BenchmarkRows is one decode step of attention with rows that grow together, with rows of their
// own lengths, and with rows of which some may rest. They alternate, so that a busy machine slows
// all of them alike. The time is that of one layer.
func BenchmarkRows(b *testing.B) {
	const heads, kvHeads, dim, tokens = 9, 3, 64, 1 << 10
	variants := []struct {
		name     string
		own, may bool
	}{{"together", false, false}, {"own", true, false}, {"resting", true, true}}
	for _, cache := range []struct {
		name   string
		config kvq.Config
	}{{"full", kvq.Config{}}, {"tutorial", kvq.Tutorial()}} {
		for _, batch := range []int{1, 4, 8} {
			b.Run(fmt.Sprintf("%s/%d", cache.name, batch), func(b *testing.B) {
				layers := max(1, benchLayers(kvHeads, dim, tokens)/batch)
				var runs []*attendBench
				for _, v := range variants {
					shape := kvq.Shape{Layers: layers, Batch: batch, KVHeads: kvHeads, HeadDim: dim, Capacity: tokens + 64, DType: dtypes.Float32, OwnLengths: v.own}
					r := newAttendBench(b, cache.config, kvq.Auto, shape, heads, tokens, func(c kvq.Cache) {
						if v.may {
							c.NewTokens(gx.GreaterOrEqualScalar(c.Length(), 0)) // true, but not for the compiler
						}
					})
					defer r.finalize()
					runs = append(runs, r)
				}
				for b.Loop() {
					for range 9 {
						for _, r := range runs {
							r.run()
						}
					}
				}
				for i, r := range runs {
					slices.Sort(r.times)
					us := func(j int) float64 { return float64(r.times[j].Nanoseconds()) / 1e3 / float64(layers) }
					b.ReportMetric(us(0), variants[i].name+"-min-us")
					b.ReportMetric(us(len(r.times)/2), variants[i].name+"-median-us")
					b.ReportMetric(r.compile.Seconds()/float64(layers), variants[i].name+"-compile-s")
					b.ReportMetric(float64(r.temporary(b))/1e6/float64(layers), variants[i].name+"-temporary-MB")
				}
			})
		}
	}
}

// temporary is what the compiled loop needs beside its state, in bytes.
func (a *attendBench) temporary(b *testing.B) int64 {
	b.Helper()
	var list []shapes.Shape
	for _, x := range a.args {
		list = append(list, x.(*tensors.Tensor).Shape())
	}
	g, err := a.exec.Compile(list...)
	if err != nil {
		b.Fatal(err)
	}
	needs, err := gx.CompiledMemory(g)
	if err != nil {
		b.Fatal(err)
	}
	return needs.Temporary
}
