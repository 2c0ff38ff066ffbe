package llama

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/dtypes/float16"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/testbackend"
)

// matrix is a random weight [out, in] as GGUF's Q4_1 has it.
type benchMatrix struct {
	out, in int
	codes   []uint8  // [out, in]
	d, m    []uint16 // [out, in/32] float16
}

func randomMatrix(out, in int, seed uint64) benchMatrix {
	r := rand.New(rand.NewPCG(seed, 1))
	w := benchMatrix{out, in, make([]uint8, out*in), make([]uint16, out*in/32), make([]uint16, out*in/32)}
	for i := range w.codes {
		w.codes[i] = uint8(r.Uint32() & 15)
	}
	for i := range w.d {
		d := float32(r.Float64()*0.01 + 0.005)
		w.d[i], w.m[i] = float16.FromFloat32(d).Bits(), float16.FromFloat32(-7.5*d).Bits()
	}
	return w
}

func (w benchMatrix) float32s() []float32 {
	out := make([]float32, len(w.codes))
	for i, q := range w.codes {
		out[i] = float16.FromBits(w.d[i/32]).Float32()*float32(q) + float16.FromBits(w.m[i/32]).Float32()
	}
	return out
}

type form struct {
	name string
	pack func(w benchMatrix) []*tensors.Tensor
	// x [B, in] float32 -> [B, out] float32
	mul func(x *Node, w []*Node, out int, always *Node) *Node
}

func t16(v []float32, dims ...int) *tensors.Tensor {
	t := tensors.FromShape(shapes.Make(dtypes.Float16, dims...))
	t.MustMutableFlatData(func(flat any) {
		for i, x := range v {
			flat.([]float16.Float16)[i] = float16.FromFloat32(x)
		}
	})
	return t
}
func t16bits(v []uint16, dims ...int) *tensors.Tensor {
	t := tensors.FromShape(shapes.Make(dtypes.Float16, dims...))
	t.MustMutableFlatData(func(flat any) {
		for i, x := range v {
			flat.([]float16.Float16)[i] = float16.FromBits(x)
		}
	})
	return t
}

// blocked reorders [out, in] to [out/lanes, in, lanes].
func blocked[T any](v []T, out, in, lanes int) []T {
	y := make([]T, len(v))
	for o := range out {
		for i := range in {
			y[(o/lanes*in+i)*lanes+o%lanes] = v[o*in+i]
		}
	}
	return y
}

func keepLoop(always, x *Node) *Node {
	return Where(BroadcastToDims(always, x.Shape().Dimensions...), x, gx.Zeros(x.Graph(), x.Shape()))
}

// hold returns a weight that XLA cannot take for the same in every turn of a loop: it would move unpacking out of the loop.
func hold(always, w *Node) *Node { return OptimizationBarriers(inside(w), always)[0] }

func slicesSum(x *Node, axis int) *Node {
	d := slices.Clone(x.Shape().Dimensions)
	n := d[axis]
	d = slices.Delete(d, axis, axis+1)
	var terms []*Node
	for i := range n {
		terms = append(terms, Reshape(SliceAxis(x, axis, AxisElem(i)), d...))
	}
	for len(terms) > 1 {
		terms = append(terms[2:], Add(terms[0], terms[1]))
	}
	return terms[0]
}

// reduceParts sums [NB, B, parts, L] to [B, NB*L].
func finish(x *Node, always *Node) *Node {
	for x.Shape().Dim(2) > 15 {
		d := x.Shape().Dimensions
		f := 2
		for f < 15 && d[2]%(f+1) == 0 || d[2]%f != 0 {
			f++
		}
		x = keepLoop(always, slicesSum(Reshape(x, d[0], d[1], d[2]/f, f, d[3]), 3))
	}
	y := keepLoop(always, slicesSum(x, 2)) // [NB, B, L]
	d := y.Shape().Dimensions
	return Reshape(TransposeAllAxes(y, 1, 0, 2), d[1], d[0]*d[2])
}

// q4 with lanes L, c groups together.
func q4(lanes, c int) form {
	return form{fmt.Sprintf("q4_1-L%d-c%d", lanes, c), func(w benchMatrix) []*tensors.Tensor {
		l := lanes
		if l == 0 {
			l = w.out
		}
		words := make([]uint32, len(w.codes)/8)
		for o := range w.out {
			for j := range w.in / 8 {
				var x uint32
				for k := range 8 {
					x |= uint32(w.codes[o*w.in+8*j+k]) << (4 * k)
				}
				words[o*w.in/8+j] = x
			}
		}
		words = blocked(words, w.out, w.in/8, l)
		nb := w.out / l
		return []*tensors.Tensor{tensors.FromFlatDataAndDimensions(words, nb, w.in/32, 4, l),
			t16bits(blocked(w.d, w.out, w.in/32, l), nb, w.in/32, l), t16bits(blocked(w.m, w.out, w.in/32, l), nb, w.in/32, l)}
	}, func(x *Node, w []*Node, out int, always *Node) *Node {
		b, in := x.Shape().Dim(0), x.Shape().Dim(1)
		words, d, m := hold(always, w[0]), hold(always, w[1]), hold(always, w[2])
		dims := words.Shape().Dimensions
		nb, g, l := dims[0], dims[1], dims[3]
		factors := make([]float32, in)
		for i := range factors {
			k := i % 8
			at := 4 * k
			if k == 7 {
				at = 24
			}
			factors[i] = 1 / float32(uint32(1)<<at)
		}
		full := []int{nb, b, g, 4, l}
		xs := Mul(x, BroadcastToDims(Reshape(Const(x.Graph(), factors), 1, in), b, in))
		xs = keepLoop(always, xs)
		xs = Reshape(xs, 1, b, g, 4, 8)
		var even, odd *Node
		for k := range 8 {
			f := words
			at := 4 * k
			if k == 7 {
				f, at = gx.ShiftRight(f, 4), 24
			}
			f = ConvertDType(Bitcast(gx.AndScalar(f, 15<<at), dtypes.Int32), dtypes.Float32)
			t := Mul(BroadcastToDims(Reshape(f, nb, 1, g, 4, l), full...), BroadcastToDims(SliceAxis(xs, 4, AxisElem(k)), full...))
			if k == 0 {
				even = t
			} else if k == 1 {
				odd = t
			} else if k%2 == 0 {
				even = Add(even, t)
			} else {
				odd = Add(odd, t)
			}
		}
		s := slicesSum(Add(even, odd), 3) // [nb, b, g, l]
		sd := s.Shape().Dimensions
		wide := func(x *Node) *Node {
			return BroadcastToDims(Reshape(ConvertDType(x, dtypes.Float32), nb, 1, g, l), sd...)
		}
		total := keepLoop(always, slicesSum2(Reshape(x, b, g, 32)))
		t := Add(Mul(s, wide(d)), Mul(wide(m), BroadcastToDims(Reshape(total, 1, b, g, 1), sd...)))
		if c > 1 {
			t = slicesSum(Reshape(t, nb, b, g/c, c, l), 3)
		}
		return finish(keepLoop(always, t), always)
	}}
}

func slicesSum2(x *Node) *Node { return gx.ReduceSum(x, 2) }

// half16: float16 [NB, in/c, c, L].
func half(lanes, c int) form {
	return form{fmt.Sprintf("f16-L%d-c%d", lanes, c), func(w benchMatrix) []*tensors.Tensor {
		l := lanes
		if l == 0 {
			l = w.out
		}
		return []*tensors.Tensor{t16(blocked(w.float32s(), w.out, w.in, l), w.out/l, w.in, l)}
	}, func(x *Node, w []*Node, out int, always *Node) *Node {
		b, in := x.Shape().Dim(0), x.Shape().Dim(1)
		y := ConvertDType(hold(always, w[0]), dtypes.Float32)
		nb, l := y.Shape().Dim(0), y.Shape().Dim(2)
		full := []int{nb, b, in / c, c, l}
		t := Mul(BroadcastToDims(Reshape(y, nb, 1, in/c, c, l), full...), BroadcastToDims(Reshape(x, 1, b, in/c, c, 1), full...))
		return finish(keepLoop(always, slicesSum(t, 3)), always)
	}}
}

// bytes8: int8 codes with scale per 32.
func q8(lanes, c int) form {
	return form{fmt.Sprintf("q8_0-L%d-c%d", lanes, c), func(w benchMatrix) []*tensors.Tensor {
		l := lanes
		if l == 0 {
			l = w.out
		}
		q := make([]int8, len(w.codes))
		for i, x := range w.codes {
			q[i] = int8(x)
		}
		return []*tensors.Tensor{tensors.FromFlatDataAndDimensions(blocked(q, w.out, w.in, l), w.out/l, w.in, l),
			t16bits(blocked(w.d, w.out, w.in/32, l), w.out/l, w.in/32, l)}
	}, func(x *Node, w []*Node, out int, always *Node) *Node {
		b, in := x.Shape().Dim(0), x.Shape().Dim(1)
		y := ConvertDType(hold(always, w[0]), dtypes.Float32)
		nb, l, g := y.Shape().Dim(0), y.Shape().Dim(2), in/32
		// 32 rows of a group: c at a time would exceed 15 uses, so rows 2j and 2j+1 are added elementwise
		full := []int{nb, b, g, c, l}
		var sum *Node
		yy := Reshape(y, nb, 1, g, c, 32/c, l)
		xx := Reshape(x, 1, b, g, c, 32/c, 1)
		for k := range 32 / c {
			t := Mul(BroadcastToDims(Reshape(SliceAxis(yy, 4, AxisElem(k)), nb, 1, g, c, l), full...), BroadcastToDims(Reshape(SliceAxis(xx, 4, AxisElem(k)), 1, b, g, c, 1), full...))
			if sum == nil {
				sum = t
			} else {
				sum = Add(sum, t)
			}
		}
		s := sum
		if c > 1 {
			s = slicesSum(sum, 3)
		} else {
			s = Reshape(sum, nb, b, g, l)
		}
		sd := s.Shape().Dimensions
		t := Mul(s, BroadcastToDims(Reshape(ConvertDType(hold(always, w[1]), dtypes.Float32), nb, 1, g, l), sd...))
		return finish(keepLoop(always, t), always)
	}}
}

var forms = []form{
	{"float32", func(w benchMatrix) []*tensors.Tensor {
		return []*tensors.Tensor{tensors.FromFlatDataAndDimensions(w.float32s(), w.out, w.in)}
	}, func(x *Node, w []*Node, out int, always *Node) *Node { return linear32(x, matrix{plain: w[0]}) }},
	{"f16-dot", func(w benchMatrix) []*tensors.Tensor {
		return []*tensors.Tensor{t16(w.float32s(), w.out, w.in)}
	}, func(x *Node, w []*Node, out int, always *Node) *Node {
		return linear32(ConvertDType(x, dtypes.Float16), matrix{plain: hold(always, w[0])})
	}},
	{"f16-convert-dot", func(w benchMatrix) []*tensors.Tensor {
		return []*tensors.Tensor{t16(w.float32s(), w.out, w.in)}
	}, func(x *Node, w []*Node, out int, always *Node) *Node {
		return linear32(x, matrix{plain: ConvertDType(hold(always, w[0]), dtypes.Float32)})
	}},
	half(64, 12), half(0, 12), half(64, 9), half(192, 12),
	q4(64, 3), q4(64, 1), q4(64, 2), q4(0, 3), q4(192, 3), q4(32, 3),
	q8(64, 4), q8(64, 8), q8(0, 8), q8(64, 2),
}

const benchSteps = 16

type linearBench struct {
	form    form
	args    []any
	exec    *Exec
	times   []time.Duration
	compile time.Duration
	result  []float32
}

func newLinearBench(b *testing.B, f form, batch, out, in, count int) *linearBench {
	r := &linearBench{form: f}
	var ws []benchMatrix
	for i := range min(count, 2) {
		ws = append(ws, randomMatrix(out, in, uint64(i)))
	}
	for i := range count {
		for _, t := range f.pack(ws[i%2]) {
			r.args = append(r.args, t)
		}
	}
	per := len(r.args) / count
	r.exec = MustNewExec(testbackend.XLA(b), func(nodes []*Node) *Node {
		g := nodes[0].Graph()
		x := Cos(ConvertDType(Iota(g, shapes.Make(dtypes.Int32, batch*in), 0), dtypes.Float32))
		x = Reshape(x, batch, in)
		return gx.Loop([]*Node{gx.Scalar(g, dtypes.Int32, 0), x}, func(st []*Node) *Node { return gx.LessThanScalar(st[0], benchSteps) },
			func(st []*Node) []*Node {
				x := st[1]
				always := gx.GreaterOrEqualScalar(st[0], 0)
				for i := range count {
					y := f.mul(x, nodes[i*per:(i+1)*per], out, always)
					for y.Shape().Dim(1) < in {
						y = Concatenate([]*Node{y, y}, 1)
					}
					y = SliceAxis(y, 1, AxisRange(0, in))
					x = Add(gx.MulScalar(x, 0.5), gx.MulScalar(y, 0.01))
				}
				return []*Node{gx.AddScalar(st[0], 1), x}
			})[1]
	})
	start := time.Now()
	r.run()
	r.compile = time.Since(start)
	r.times = nil
	return r
}

func (r *linearBench) run() {
	start := time.Now()
	out := r.exec.MustCall(r.args...)
	r.result = tensors.MustCopyFlatData[float32](out[0])
	r.times = append(r.times, time.Since(start)/benchSteps)
	out[0].MustFinalizeAll()
}

func BenchmarkLinear(b *testing.B) {
	only := os.Getenv("FORMS")
	for _, batch := range []int{1, 8} {
		for _, shape := range [][3]int{{3072, 576, 30}, {576, 1536, 30}, {49152, 576, 1}} {
			b.Run(fmt.Sprintf("b%d/%dx%d", batch, shape[0], shape[1]), func(b *testing.B) {
				var runs []*linearBench
				for _, f := range forms {
					if only != "" && f.name != "float32" && !strings.Contains(only, f.name) {
						continue
					}
					r := newLinearBench(b, f, batch, shape[0], shape[1], min(shape[2], benchCount()))
					r.run()
					fmt.Printf("%-16s compile %5.2f s, %v\n", f.name, r.compile.Seconds(), r.times[0])
					runs = append(runs, r)
				}
				for range 5 {
					for _, r := range runs {
						r.run()
					}
				}
				for b.Loop() {
				}
				for _, r := range runs {
					slices.Sort(r.times)
					var diff float64
					for i := range r.result {
						diff = max(diff, float64(abs32(r.result[i]-runs[0].result[i])))
					}
					us := func(d time.Duration) float64 {
						return float64(d.Nanoseconds()) / 1e3 / float64(min(shape[2], benchCount()))
					}
					fmt.Printf("%-16s min %8.1f us median %8.1f us  compile %5.2f s diff %.2g\n", r.form.name, us(r.times[0]), us(r.times[len(r.times)/2]), r.compile.Seconds(), diff)
					for _, a := range r.args {
						a.(*tensors.Tensor).MustFinalizeAll()
					}
					r.exec.Finalize()
				}
			})
		}
	}
}

func benchCount() int {
	n, err := strconv.Atoi(os.Getenv("COUNT"))
	if err != nil {
		return 30
	}
	return n
}

func abs32(x float32) float32 {
	if x < 0 {
		return -x
	}
	return x
}
