package kvq_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/kvqhook"
	"github.com/kvqbook/kvqbook/internal/testbackend"
	"github.com/kvqbook/kvqbook/kvq"
)

// attendBench is decode attention over so many layers that their caches do not stay in the
// processor's cache.
type attendBench struct {
	exec    *Exec
	args    []any
	compile time.Duration
	times   []time.Duration
}

// benchSteps are enough that what a call does once, copying its caches in, does not count.
const benchSteps = 64

// benchLayers keeps float32 caches at 128 MB and more.
func benchLayers(kvHeads, dim, tokens int) int {
	return max(1, min(30, (128<<20)/(8*kvHeads*dim*tokens)))
}

// newAttendBench compiles steps over caches of a shape that hold so many tokens. begin is called at
// the start of each.
func newAttendBench(b *testing.B, config kvq.Config, form kvq.Form, shape kvq.Shape, heads, tokens int, begin func(c kvq.Cache)) *attendBench {
	const steps = benchSteps
	backend := testbackend.XLA(b)
	layers, kvHeads, dim := shape.Layers, shape.KVHeads, shape.HeadDim
	plan, err := kvq.New(config, shape)
	if err != nil {
		b.Fatal(err)
	}
	plan = plan.WithForm(form)
	fill := MustNewExec(backend, func(one *Node) []*Node { return kvqhook.Synthetic(plan, one.Graph(), tokens) })
	defer fill.Finalize()
	a := &attendBench{}
	for _, t := range fill.MustCall(int32(0)) {
		a.args = append(a.args, t)
	}
	a.exec = MustNewExec(backend, func(in []*Node) *Node {
		g := in[0].Graph()
		q := Reshape(Iota(g, shapes.Make(dtypes.Int32, shape.Batch*heads*dim), 0), shape.Batch, heads, 1, dim)
		q = Cos(gx.MulScalar(ConvertDType(q, dtypes.Float32), 1e-3))
		out := gx.Loop(append([]*Node{gx.Scalar(g, dtypes.Int32, 0), q}, in...),
			func(st []*Node) *Node { return gx.LessThanScalar(st[0], steps) },
			func(st []*Node) []*Node {
				c, q := plan.From(st[2:]), st[1]
				begin(c)
				for layer := range layers {
					token := Slice(q, AxisRange(), AxisRange(0, kvHeads))
					c.Layer(layer).Append(token, token)
					q = gx.MulScalar(Add(q, c.Layer(layer).Attend(q)), 0.5)
				}
				c.Advance()
				return append([]*Node{gx.AddScalar(st[0], 1), q}, c.Nodes()...)
			})
		return out[1]
	})
	start := time.Now()
	a.run()
	a.compile = time.Since(start)
	a.times = nil
	return a
}

func (a *attendBench) run() {
	start := time.Now()
	out := a.exec.MustCall(a.args...)
	out[0].MustConstFlatData(func(any) {})
	a.times = append(a.times, time.Since(start)/benchSteps)
	out[0].MustFinalizeAll()
}

func (a *attendBench) finalize() {
	for _, x := range a.args {
		x.(*tensors.Tensor).MustFinalizeAll()
	}
	a.exec.Finalize()
}

// BenchmarkAttend is one decode step of attention, 4-bit caches beside full precision: they
// alternate, so that a busy machine slows all of them alike. The time is that of one layer.
func BenchmarkAttend(b *testing.B) {
	for _, shape := range []struct {
		name                string
		heads, kvHeads, dim int
	}{{"SmolLM2", 9, 3, 64}, {"Llama-2-7B", 32, 32, 128}} {
		for _, tokens := range []int{1 << 10, 4 << 10, 16 << 10, 32 << 10} {
			b.Run(fmt.Sprintf("%s/%d", shape.name, tokens), func(b *testing.B) {
				names, forms := []string{"full", "tiles", "words"}, []kvq.Form{kvq.Auto, kvq.Tiles, kvq.Words}
				var runs []*attendBench
				of := kvq.Shape{Layers: benchLayers(shape.kvHeads, shape.dim, tokens), Batch: 1, KVHeads: shape.kvHeads, HeadDim: shape.dim,
					Capacity: tokens + benchSteps, DType: dtypes.Float32}
				for i, config := range []kvq.Config{{}, kvq.Tutorial(), kvq.Tutorial()} {
					r := newAttendBench(b, config, forms[i], of, shape.heads, tokens, func(kvq.Cache) {})
					defer r.finalize()
					runs = append(runs, r)
				}
				for b.Loop() {
					for range 7 {
						for _, r := range runs {
							r.run()
						}
					}
				}
				layers := float64(benchLayers(shape.kvHeads, shape.dim, tokens))
				for i, r := range runs {
					slices.Sort(r.times)
					us := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 / layers }
					b.ReportMetric(us(r.times[0]), names[i]+"-min-us")
					b.ReportMetric(us(r.times[len(r.times)/2]), names[i]+"-median-us")
					b.ReportMetric(r.compile.Seconds()/layers, names[i]+"-compile-s")
				}
			})
		}
	}
}
