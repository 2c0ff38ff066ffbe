package kvq

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/device"
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/testbackend"
	"github.com/kvqbook/kvqbook/internal/ttir"
)

// kernelCase is a cache that has a kernel.
type kernelCase struct {
	name           string
	config         Config
	heads, kvHeads int
	dim, sliding   int
	dtype          dtypes.DType
}

func kernelCases(t testing.TB) []kernelCase {
	f32, f16, bf16 := dtypes.Float32, dtypes.Float16, dtypes.BFloat16
	quanto := func(bits, group int) Config {
		return Config{Backend: Quanto, NBits: bits, QGroupSize: group, ResidualLength: 9}
	}
	cases := []kernelCase{
		{"tutorial", Tutorial(), 6, 2, 64, 0, bf16},
		{"quanto 2 bit", quanto(2, 32), 2, 2, 128, 0, f16},
		{"quanto 4 bit, groups of 64", quanto(4, 64), 2, 1, 128, 0, f32},
		{"quanto 8 bit", quanto(8, 32), 2, 2, 128, 0, bf16},
		{"quanto 3 bit, dim 32", quanto(3, 32), 2, 2, 32, 0, f32},
		{"keys per channel, sliding", blocks(4, perChannelKeys), 4, 2, 64, 100, f32},
		{"both per channel, groups of 64 and 32", blocks(4, func(c *Config) { perChannelKeys(c); c.AxisValue, c.QGroupSizeKey = PerChannel, 64 }), 2, 2, 64, 0, f32},
		{"keys rotated alone", blocks(4, func(c *Config) { perChannelKeys(c); c.RotateKeys = true }), 4, 2, 64, 0, bf16},
		{"values rotated alone", blocks(4, func(c *Config) { c.RotateValues = true }), 4, 2, 64, 0, f32},
		{"symmetric", blocks(4, func(c *Config) { c.QuantizerKey, c.QuantizerValue = Symmetric, Symmetric }), 4, 1, 64, 0, bf16},
	}
	for _, name := range Presets() {
		cases = append(cases, kernelCase{"preset " + name, presetOf(t, name), 2, 2, 128, 0, bf16})
	}
	return cases
}

// kernelTest is a plan, its kernel, and a state that holds made-up codes, scales and tokens: two rows, the second with fewer tokens.
type kernelTest struct {
	plan  *Plan
	k     kernelShape
	state []any
}

func newKernelTest(t *testing.T, c kernelCase) kernelTest {
	t.Helper()
	shape := Shape{Layers: 1, Batch: 2, KVHeads: c.kvHeads, HeadDim: c.dim, Capacity: 140, DType: c.dtype, SlidingWindow: c.sliding}
	plan := newPlan(t, c.config, shape)
	k, ok := plan.kernelFor(plan.layers[0], c.heads/c.kvHeads, dtypes.Float32)
	if !ok {
		t.Fatalf("no kernel for %s", c.config)
	}
	rng := rand.New(rand.NewPCG(7, 11))
	x := kernelTest{plan: plan, k: k}
	used := []int32{100, 40}
	for _, a := range plan.arrays() {
		n := a.shape.Size()
		values := make([]float32, n)
		for i := range values {
			values[i] = rng.Float32()
			if a.role == roleZeros {
				values[i] -= 0.5
			}
		}
		var one *tensors.Tensor
		d := a.shape.Dimensions
		switch {
		case a.name == "codeIndex":
			index := make([]int32, n)
			for i := range index {
				row, slot := int32(i/d[1]), int32(i%d[1])
				if index[i] = slot; slot >= used[row] || slot%7 == 3 { // some slots are empty
					index[i] = -1
				}
			}
			one = tensors.FromFlatDataAndDimensions(index, d...)
		case a.name == "exactIndex":
			index := make([]int32, n)
			for i := range index {
				index[i] = int32(100 + i%d[1]%20 - 5*(i%3)) // some are of the future, some were overwritten
			}
			one = tensors.FromFlatDataAndDimensions(index, d...)
		case a.role == roleLength:
			one = tensors.FromValue(int32(110))
		case a.role == roleUsed:
			one = tensors.FromFlatDataAndDimensions(used, d...)
		case a.shape.DType == dtypes.Int32:
			one = tensors.FromFlatDataAndDimensions(make([]int32, n), d...)
		case a.shape.DType == dtypes.Uint32:
			words := make([]uint32, n)
			for i := range words {
				words[i] = rng.Uint32()
			}
			one = tensors.FromFlatDataAndDimensions(words, d...)
		case a.shape.DType == dtypes.Uint8: // scales of 0 to 1/8, small ones too
			bytes := make([]uint8, n)
			for i := range bytes {
				bytes[i] = uint8(rng.Uint32N(96))
			}
			one = tensors.FromFlatDataAndDimensions(bytes, d...)
		default:
			one = tensorOf(a.shape.DType, values, d...)
		}
		x.state = append(x.state, one)
	}
	return x
}

// call builds a graph of the cache and of made-up queries, and runs it.
func (x kernelTest) call(t *testing.T, backend compute.Backend, build func(c *quantizedCache, q *Node) []*Node) []*tensors.Tensor {
	t.Helper()
	exec := MustNewExec(backend, func(state []*Node) []*Node {
		c := x.plan.From(state).(*quantizedCache)
		c.step = 1
		return build(c, Sin(IotaFull(state[0].Graph(), shapes.Make(dtypes.Float32, x.k.batch, x.k.heads, x.k.queries, x.k.dim))))
	})
	defer exec.Finalize()
	out, err := exec.Exec(x.state...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// attendGraph is what the kernel is to give, in graph operations: attention over codes, and over sinks and window in float32.
func (c *quantizedCache) attendGraph(q *Node, k kernelShape) partial {
	q = gx.MulScalar(q, k.scoreScale())
	sum := c.attendCodes(0, q)
	keys, values := matchFloat32(c.layers[0].exactKeys), matchFloat32(c.layers[0].exactValues)
	scores := Add(scoresOf(q, keys), foldBias(c.stepMasks().exact, k.queries))
	return sum.merge(newPartial(scores, func(w *Node) *Node { return weighedSum(w, values) }))
}

// The kernel, executed on the processor, gives what graph operations give for the same cache.
func TestKernelEqualsGraph(t *testing.T) {
	for _, c := range kernelCases(t) {
		t.Run(c.name, func(t *testing.T) {
			x := newKernelTest(t, c)
			out := x.call(t, testbackend.XLA(t), func(c *quantizedCache, q *Node) []*Node {
				tiles := *c.plan
				tiles.tiled = true
				c.plan = &tiles
				sum := c.attendGraph(q, x.k)
				return append([]*Node{sum.max, sum.sum, sum.out}, c.kernelInputs(0, q, x.k)...)
			})
			k := x.k
			for _, k.splits = range []int{1, 3} {
				requireParts(t, fmt.Sprintf("%d splits", k.splits), 1e-5, k.runOnHost(out[3:]), hostParts(out[:3]))
			}
		})
	}
}

// What has no kernel, and plans that are not to use theirs.
func TestNoKernel(t *testing.T) {
	shape := Shape{Layers: 1, Batch: 1, KVHeads: 2, HeadDim: 64, Capacity: 100, DType: dtypes.Float32}
	other := shape
	other.HeadDim = 96
	for name, p := range map[string]*Plan{
		"bytes that are not packed":    newPlan(t, blocks(0, func(c *Config) { c.QuantizerKey = Int8 }), shape),
		"a dimension of no power of 2": newPlan(t, Tutorial(), other),
	} {
		if _, ok := p.kernelFor(p.layers[0], 2, dtypes.Float32); ok {
			t.Errorf("%s: there is a kernel", name)
		}
	}
	p := newPlan(t, Tutorial(), shape)
	if p.WithoutKernel() == p || !p.WithoutKernel().noKernel || p.noKernel {
		t.Error("WithoutKernel has to return another plan, and leave this one as it is")
	}
}

// The same on a GPU, as XLA compiles it.
func TestKernelOnCUDA(t *testing.T) {
	if !device.HasNVIDIA() {
		t.Skip("no NVIDIA GPU")
	}
	backend, err := device.Open(device.XLACUDA)
	if err != nil {
		t.Skip(err)
	}
	defer backend.Finalize()
	for _, c := range kernelCases(t) {
		t.Run(c.name, func(t *testing.T) {
			x := newKernelTest(t, c)
			out := x.call(t, backend, func(c *quantizedCache, q *Node) []*Node {
				if !onCUDA(q.Graph()) {
					t.Error("the graph is for CUDA, and onCUDA does not see it")
				}
				kernel, graph := c.attendKernel(0, q, x.k), c.attendGraph(q, x.k)
				return []*Node{kernel.max, kernel.sum, kernel.out, graph.max, graph.sum, graph.out}
			})
			requireParts(t, "on CUDA", 5e-5, hostParts(out[:3]), hostParts(out[3:]))
		})
	}
}

// parts is a partial on the host, by query of a head of a row.
type parts struct {
	max, sum []float32
	out      []float32
}

func hostParts(x []*tensors.Tensor) parts {
	flat := func(x *tensors.Tensor) []float32 {
		values, err := tensors.CopyFlatData[float32](x)
		if err != nil {
			panic(err)
		}
		return values
	}
	return parts{flat(x[0]), flat(x[1]), flat(x[2])}
}

// runOnHost executes the kernel and the merge over inputs.
func (k kernelShape) runOnHost(inputs []*tensors.Tensor) parts {
	rows := k.batch * k.heads * k.queries
	room := func(n int) parts {
		return parts{make([]float32, n), make([]float32, n), make([]float32, n*k.dim)}
	}
	var memory ttir.Memory
	for _, x := range inputs {
		x.MustConstFlatData(func(flat any) { memory = append(memory, flat) })
	}
	all, merged := room(k.programs()*rows), room(rows)
	k.build().Run([3]int{rows / k.together, k.programs(), 1}, append(memory, all.max, all.sum, all.out))
	joined := ttir.Memory{all.max, all.sum, all.out, merged.max, merged.sum, merged.out}
	exact := make([]float32, len(merged.out))
	if k.value.Rotate {
		joined = append(joined, exact)
	}
	k.buildMerge().Run([3]int{rows, k.dim / mergeChannels, 1}, joined)
	if k.value.Rotate { // turned back, and added
		h := Hadamard(k.dim)
		for at := 0; at < len(exact); at += k.dim {
			turned := merged.out[at : at+k.dim]
			back := slices.Clone(exact[at : at+k.dim])
			for i := range back {
				for j, x := range turned {
					back[i] += x * h[i][j]
				}
			}
			copy(turned, back)
		}
	}
	return merged
}

// requireParts allows rounding of sums in float32: scores of some tens, to tolerance, and weights to ten times of it.
func requireParts(t *testing.T, what string, tolerance float64, got, want parts) {
	t.Helper()
	dim := len(want.out) / len(want.max)
	for row, top := range want.max {
		if math.Abs(float64(got.max[row]-top)) > tolerance*max(1, math.Abs(float64(top))) {
			t.Fatalf("%s, row %d: largest score %v, want %v", what, row, got.max[row], top)
		}
		if sum := want.sum[row]; math.Abs(float64(got.sum[row]-sum)) > 10*tolerance*float64(sum) {
			t.Fatalf("%s, row %d: sum of weights %v, want %v", what, row, got.sum[row], sum)
		}
		largest := 0.0
		for d := range dim {
			largest = max(largest, math.Abs(float64(want.out[row*dim+d])))
		}
		for d := range dim {
			if g, w := got.out[row*dim+d], want.out[row*dim+d]; !(math.Abs(float64(g-w)) <= 10*tolerance*largest) {
				t.Fatalf("%s, row %d: output %d is %v, want %v", what, row, d, g, w)
			}
		}
	}
}

// The programs that read codes fill an H100 a whole number of times, as well as there are blocks for them.
func TestKernelPrograms(t *testing.T) {
	llama2 := Shape{Layers: 1, Batch: 1, KVHeads: 32, HeadDim: 128, Capacity: 32768, DType: dtypes.BFloat16}
	for _, c := range []struct{ batch, capacity, want int }{
		{1, 32768, 49}, // 1,568 of 1,584
		{1, 1024, 32},  // as many as there are blocks
		{8, 4096, 6},   // 1,536
		{20, 4096, 7},  // 4,480 of 3 x 1,584
		{32, 4096, 3},  // 3,072 of 2 x 1,584
	} {
		s := llama2
		s.Batch, s.Capacity = c.batch, c.capacity
		p, err := New(Tutorial(), s)
		if err != nil {
			t.Fatal(err)
		}
		k, ok := p.kernelFor(p.layers[0], 1, dtypes.BFloat16)
		if !ok || k.splits != c.want {
			t.Errorf("batch %d, %d tokens: %d programs a head, want %d (kernel: %v)", c.batch, c.capacity, k.splits, c.want, ok)
		}
	}
}
