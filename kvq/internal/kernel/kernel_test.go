package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/internal/golden"
	"github.com/kvqbook/kvqbook/internal/gpu"
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/ptx"
	"github.com/kvqbook/kvqbook/internal/testbackend"
	"github.com/kvqbook/kvqbook/internal/testlane"
	"github.com/kvqbook/kvqbook/internal/ttir"
	"github.com/kvqbook/kvqbook/kvq/internal/attend"
	"github.com/kvqbook/kvqbook/kvq/internal/codes"
	"github.com/kvqbook/kvqbook/kvq/internal/numbers"
)

// coding is how a side is coded.
type coding struct {
	bits, group int
	scales      numbers.ScaleFormat
	quantizer   *numbers.Quantizer // nil: MinMax
	perChannel  bool
	rotate      bool
	tokenScales bool
}

func (c coding) format(keys bool, dim int) codes.Format {
	spec := numbers.Spec{Quantizer: c.quantizer, Bits: c.bits, Scales: c.scales, Keys: keys}
	if spec.Quantizer == nil {
		spec.Quantizer = numbers.MinMax
	}
	f := codes.New(spec, dim, c.group, c.perChannel, c.rotate)
	f.TokenScales = c.tokenScales && keys
	return f
}

// kernelCase is a layer that has a kernel.
type kernelCase struct {
	name           string
	key, value     coding
	heads, kvHeads int
	dim, sliding   int
	dtype          dtypes.DType
	blocks, exact  int // what kvq.Plan gives such a cache of 140 slots
}

func kernelCases() []kernelCase {
	f32, f16, bf16 := dtypes.Float32, dtypes.Float16, dtypes.BFloat16
	quanto := func(bits, group int) coding { return coding{bits: bits, group: group} }
	half := numbers.ScaleFloat16
	perToken := coding{bits: 4, group: 32, scales: half}
	perChannel := coding{bits: 4, group: 32, scales: half, perChannel: true}
	rotated := func(c coding) coding { c.rotate = true; return c }
	wide := perChannel
	wide.group = 64
	symmetric := perToken
	symmetric.quantizer = numbers.Symmetric
	preset := func(bits, group int, scales numbers.ScaleFormat, perChannel bool) coding {
		return coding{bits, group, scales, numbers.Unbiased, perChannel, true, false}
	}
	andToken := func(c coding) coding { c.tokenScales = true; return c }
	same := func(name string, c coding, heads, kvHeads, dim int, dtype dtypes.DType, blocks, exact int) kernelCase {
		return kernelCase{name, c, c, heads, kvHeads, dim, 0, dtype, blocks, exact}
	}
	return []kernelCase{
		same("tutorial", quanto(4, 32), 6, 2, 64, bf16, 5, 64),
		same("quanto 2 bit", quanto(2, 32), 2, 2, 128, f16, 5, 9),
		same("quanto 4 bit, groups of 64", quanto(4, 64), 2, 1, 128, f32, 5, 9),
		same("quanto 8 bit", quanto(8, 32), 2, 2, 128, bf16, 5, 9),
		same("quanto 3 bit, dim 32", quanto(3, 32), 2, 2, 32, f32, 5, 9),
		{"keys per channel, sliding", perChannel, perToken, 4, 2, 64, 100, f32, 6, 38},
		{"both per channel, groups of 64 and 32", wide, perChannel, 2, 2, 64, 0, f32, 8, 70},
		{"keys rotated alone", rotated(perChannel), perToken, 4, 2, 64, 0, bf16, 6, 38},
		{"values rotated alone", perToken, rotated(perToken), 4, 2, 64, 0, f32, 5, 38},
		same("symmetric", symmetric, 4, 1, 64, bf16, 5, 38),
		{"preset balanced", preset(5, 64, half, true), preset(4, 64, half, false), 2, 2, 128, 0, bf16, 8, 73},
		{"preset lowest", preset(2, 32, numbers.Scale8, true), preset(2, 64, numbers.Scale8, false), 2, 2, 128, 0, bf16, 6, 41},
		{"preset lowest, token scales", andToken(preset(2, 32, numbers.Scale8, true)), preset(2, 64, numbers.Scale8, false), 4, 2, 128, 0, bf16, 6, 41},
		{"groups of 64 tokens, token scales, sliding", andToken(wide), perToken, 4, 2, 64, 100, f32, 8, 70},
		{"preset quality", preset(6, 64, half, true), preset(6, 64, half, false), 2, 2, 128, 0, bf16, 8, 73},
		{"preset smallest", preset(3, 64, numbers.Scale8, true), preset(3, 64, numbers.Scale8, false), 2, 2, 128, 0, bf16, 8, 73},
		// by tensor units; five and seven queries are two programs that share some
		same("units, four queries a head", quanto(4, 32), 8, 2, 128, bf16, 5, 73),
		{"units, five queries a head, sliding", quanto(4, 64), quanto(4, 32), 10, 2, 128, 100, f32, 5, 38},
		same("units, 2 bits, seven queries a head", quanto(2, 32), 14, 2, 128, f16, 5, 9),
		same("units, 8 bits", quanto(8, 32), 8, 2, 64, bf16, 5, 9),
		same("units, 3 bits, dim 32", quanto(3, 32), 6, 2, 32, f32, 5, 9),
		{"units, 5 and 6 bits, rotated", rotated(coding{bits: 5, group: 64, scales: half}), rotated(coding{bits: 6, group: 32, scales: half}), 8, 2, 128, 0, bf16, 5, 38},
		same("units, 6 bits, symmetric", coding{bits: 6, group: 32, scales: numbers.ScaleFloat32, quantizer: numbers.Symmetric}, 3, 1, 64, bf16, 5, 9),
		{"units, keys per channel, sliding", wide, perToken, 8, 2, 64, 100, f32, 8, 70},
		{"units, preset balanced", preset(5, 64, half, true), preset(4, 64, half, false), 8, 2, 128, 0, bf16, 8, 73},
		{"units, preset lowest, token scales", andToken(preset(2, 32, numbers.Scale8, true)), preset(2, 64, numbers.Scale8, false), 8, 2, 128, 0, bf16, 6, 41},
		{"units, preset smallest, token scales", andToken(preset(3, 64, numbers.Scale8, true)), preset(3, 64, numbers.Scale8, false), 3, 1, 64, 0, bf16, 8, 73},
		{"units, 1 bit, token scales", andToken(preset(1, 64, numbers.Scale8, true)), preset(1, 64, numbers.Scale8, false), 3, 1, 64, 0, bf16, 8, 73},
		{"units, symmetric in bytes", coding{bits: 4, group: 32, scales: numbers.Scale8, quantizer: numbers.Symmetric}, coding{bits: 2, group: 32, scales: numbers.Scale8, quantizer: numbers.Symmetric}, 4, 1, 64, 0, f32, 5, 9},
		{"units, symmetric keys per channel", coding{bits: 4, group: 32, scales: half, quantizer: numbers.Symmetric, perChannel: true}, perToken, 6, 2, 64, 0, f32, 6, 38},
		// by tensor units of bytes, as presets with one query a head are
		{"bytes, keys per channel, sliding", perChannel, perToken.ofGroup(64), 2, 2, 128, 100, f32, 6, 38},
		{"bytes, 8 and 6 bits, symmetric", coding{bits: 8, group: 64, scales: numbers.ScaleFloat32, quantizer: numbers.Symmetric, perChannel: true},
			coding{bits: 6, group: 64, scales: numbers.ScaleFloat32, quantizer: numbers.Symmetric}, 2, 2, 128, 0, f16, 8, 70},
		{"bytes, 6 and 8 bits in bytes, not rotated", coding{bits: 6, group: 128, scales: numbers.Scale8, perChannel: true},
			coding{bits: 8, group: 64, scales: numbers.Scale8}, 2, 2, 128, 0, bf16, 8, 132},
		{"bytes, 1 bit, keys rotated", rotated(coding{bits: 1, group: 64, perChannel: true}), coding{bits: 1, group: 64}, 2, 2, 128, 0, bf16, 8, 70},
		// no powers of two: words of 32 bits, of 16, of 8 with rows of padding; slices and groups
		// padded
		{"tutorial, heads of 100", quanto(4, 20), quanto(4, 25), 6, 2, 100, 0, bf16, 5, 64},
		{"preset balanced, heads of 100", preset(5, 64, half, true), preset(4, 50, half, false), 2, 2, 100, 0, f32, 8, 73},
		same("tutorial, heads of 80", quanto(4, 20), 4, 2, 80, f16, 5, 64),
		same("tutorial, heads of 96", quanto(4, 32), 2, 2, 96, f32, 5, 64),
		same("quanto 8 bit, heads of 40", quanto(8, 20), 2, 1, 40, bf16, 5, 9),
		same("symmetric, heads of 120", coding{bits: 4, group: 24, scales: half, quantizer: numbers.Symmetric}, 2, 2, 120, f32, 5, 9),
		same("both per channel, heads of 48", perChannel, 2, 2, 48, f32, 6, 38),
		{"preset balanced, heads of 96", preset(5, 64, half, true), preset(4, 48, half, false), 2, 2, 96, 0, bf16, 8, 73},
		{"preset smallest, heads of 112", preset(3, 64, numbers.Scale8, true), preset(3, 56, numbers.Scale8, false), 2, 2, 112, 0, bf16, 8, 73},
		{"preset quality, heads of 160", preset(6, 64, half, true), preset(6, 40, half, false), 2, 2, 160, 0, bf16, 8, 73},
		{"preset lowest, heads of 80", preset(2, 32, numbers.Scale8, true), preset(2, 40, numbers.Scale8, false), 2, 2, 80, 0, bf16, 6, 41},
		{"preset smallest, heads of 36", preset(3, 64, numbers.Scale8, true), preset(3, 36, numbers.Scale8, false), 2, 2, 36, 0, f32, 8, 73},
	}
}

// scoredCase is a layer of a model that makes scores in another way than Llama.
type scoredCase struct {
	kernelCase
	scores attend.Scores // its scale 0: 1/sqrt(dim)
}

// scoredCases are all kernelCases, and some with scores of every kind.
func scoredCases() []scoredCase {
	var list []scoredCase
	for _, c := range kernelCases() {
		list = append(list, scoredCase{kernelCase: c})
		add := func(name string, s attend.Scores) {
			c := c
			c.name += ", " + name
			list = append(list, scoredCase{c, s})
		}
		switch c.name {
		case "keys per channel, sliding", "bytes, keys per channel, sliding":
			add("soft cap and scale", attend.Scores{Scale: 1 / 6., SoftCap: 3})
			add("slopes", attend.Scores{Slopes: []float64{0.5, 0.25, 0.125, 0}[:c.heads]})
		case "units, five queries a head, sliding":
			add("soft cap", attend.Scores{Scale: 1 / 6., SoftCap: 3})
		case "tutorial":
			add("soft cap and slopes", attend.Scores{SoftCap: 20, Slopes: []float64{0.5, 0.25, 0.125, 0, 2, 1 / 64.}})
		case "keys rotated alone":
			add("soft cap and slopes", attend.Scores{SoftCap: 20, Slopes: []float64{1 / 16., 1 / 8., 1 / 64., 0.5}})
		}
	}
	return list
}

// kernelTest is a kernel, and the state of a layer that holds made-up codes, scales and tokens: two
// rows, the second with fewer tokens.
type kernelTest struct {
	k Attention
	// position, used, codeIndex, exactIndex, exact keys and values, arrays of keys and values
	state []any
}

func (c scoredCase) shape() Shape {
	if c.scores.Scale == 0 {
		c.scores.Scale = 1 / math.Sqrt(float64(c.dim))
	}
	return Shape{
		Scores: c.scores,
		Key:    c.key.format(true, c.dim), Value: c.value.format(false, c.dim),
		Batch: 2, Heads: c.kvHeads, Queries: c.heads / c.kvHeads, Blocks: c.blocks, Exact: c.exact, SlidingWindow: c.sliding,
		CacheType: c.dtype, QueryType: dtypes.Float32,
	}
}

func newKernelTest(t *testing.T, c scoredCase) kernelTest {
	t.Helper()
	s := c.shape()
	rng := rand.New(rand.NewPCG(7, 11))
	x := kernelTest{k: New(s)}
	used := []int32{90, 40} // three blocks, and two
	index := func(slots int, token func(row, slot int) int32) *tensors.Tensor {
		list := make([]int32, s.Batch*slots)
		for i := range list {
			list[i] = token(i/slots, i%slots)
		}
		return tensors.FromFlatDataAndDimensions(list, s.Batch, slots)
	}
	slots := s.Blocks * codes.BlockTokens
	x.state = []any{
		[]int32{110, 110}, used,
		index(slots, func(row, slot int) int32 { // some slots are empty
			if int32(slot) >= used[row] || slot%7 == 3 {
				return -1
			}
			return int32(slot)
		}),
		index(s.Exact, func(row, slot int) int32 { // some are of the future, some were overwritten
			i := row*s.Exact + slot
			return int32(100 + slot%20 - 5*(i%3))
		}),
	}
	floats := func(shape shapes.Shape, less float32) *tensors.Tensor {
		values := make([]float32, shape.Size())
		for i := range values {
			values[i] = rng.Float32() - less
		}
		return golden.Array{Shape: shape.Dimensions, Floats: values}.Tensor(shape.DType)
	}
	exact := shapes.Make(c.dtype, s.Batch, s.Heads, s.Exact, c.dim)
	x.state = append(x.state, floats(exact, 0), floats(exact, 0))
	for _, f := range []codes.Format{s.Key, s.Value} {
		for _, array := range f.Arrays(s.Batch, s.Heads, slots, c.dtype) {
			a := array.Shape
			d, n := a.Dimensions, a.Size()
			switch {
			case array.Kind == codes.KindCodes: // of padding too
				x.state = append(x.state, randomWords(rng, a))
			case array.Kind == codes.KindTokens: // from 0 to 2
				list := make([]uint8, n)
				for i := range list {
					list[i] = uint8(rng.Uint32N(160))
				}
				x.state = append(x.state, tensors.FromFlatDataAndDimensions(list, d...))
			case a.DType == dtypes.Uint8: // scales of 0 to 1/8, small ones too
				list := make([]uint8, n)
				for i := range list {
					list[i] = uint8(rng.Uint32N(96))
				}
				x.state = append(x.state, tensors.FromFlatDataAndDimensions(list, d...))
			case array.Kind == codes.KindZeros:
				x.state = append(x.state, floats(a, 0.5))
			default:
				x.state = append(x.state, floats(a, 0))
			}
		}
	}
	return x
}

func randomWords(rng *rand.Rand, a shapes.Shape) *tensors.Tensor {
	d, list := a.Dimensions, make([]uint32, a.Size())
	for i := range list {
		list[i] = rng.Uint32()
	}
	switch a.DType {
	case dtypes.Uint16:
		return tensors.FromFlatDataAndDimensions(narrowed[uint16](list), d...)
	case dtypes.Uint8:
		return tensors.FromFlatDataAndDimensions(narrowed[uint8](list), d...)
	}
	return tensors.FromFlatDataAndDimensions(list, d...)
}

func narrowed[T uint16 | uint8](list []uint32) []T {
	out := make([]T, len(list))
	for i, x := range list {
		out[i] = T(x)
	}
	return out
}

// call builds a graph of the layer and of made-up queries, and runs it.
func (x kernelTest) call(t *testing.T, backend compute.Backend, build func(in Inputs) []*Node) []*tensors.Tensor {
	t.Helper()
	k := x.k
	exec := MustNewExec(backend, func(state []*Node) []*Node {
		in := k.inputsOf(state)
		in.Queries = Sin(IotaFull(state[0].Graph(), shapes.Make(dtypes.Float32, k.Batch, k.Heads, k.Queries, k.dim())))
		return build(in)
	})
	defer exec.Finalize()
	out, err := exec.Exec(x.state...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// inputsOf takes the state of a kernelTest apart.
func (k Attention) inputsOf(state []*Node) Inputs {
	in := Inputs{Position: state[0], Used: state[1], CodeIndex: state[2], ExactIndex: state[3], ExactKeys: state[4], ExactValues: state[5]}
	var rest []*Node
	in.Keys, rest = k.Key.Take(state[6:])
	in.Values, _ = k.Value.Take(rest)
	return in
}

// graph is what the kernel is to give, in graph operations: attention over codes, and over sinks
// and window in float32.
func (k Attention) graph(in Inputs, form attend.Form) attend.Partial {
	q := gx.MulScalar(in.Queries, k.scoreScale())
	position := Reshape(in.Position, k.Batch, 1)
	view := attend.View{Position: position, Window: k.SlidingWindow, Distances: len(k.Scores.Slopes) > 0}
	coded := attend.Coded{
		Scores: k.Scores, Seen: view.Of(in.CodeIndex), Used: in.Used,
		Key: k.Key, Value: k.Value, Keys: in.Keys, Values: in.Values,
		Length:     gx.ReduceMax(in.Position),
		TileBlocks: attend.TileBlocks(k.Batch*k.Heads, max(1, k.Key.Group/codes.BlockTokens), k.Blocks), Functions: &gx.Functions{},
	}
	sum := coded.Attend(form, q)
	return sum.Merge(k.Scores.Exact(q, attend.Float32(in.ExactKeys), attend.Float32(in.ExactValues), view.Of(in.ExactIndex)))
}

// The kernel, executed on the processor, gives what graph operations give for the same cache.
func TestKernelEqualsGraph(t *testing.T) {
	for _, c := range scoredCases() {
		t.Run(c.name, func(t *testing.T) {
			if c.name != "tutorial" && c.name != "preset smallest" {
				testlane.Slow(t, "the tutorial's kernel and that of preset smallest stand for all")
			}
			if strings.Contains(c.name, "heads of") && !strings.Contains(c.name, "heads of 100") {
				testlane.OnlyAll(t, "heads of 100 stand for all that are padded")
			}
			if c.name == "groups of 64 tokens, token scales, sliding" {
				testlane.OnlyAll(t, "a preset has scales of tokens too")
			}
			x := newKernelTest(t, c)
			out := x.call(t, testbackend.XLA(t), func(in Inputs) []*Node {
				sum := x.k.graph(in, attend.Tiles)
				list := append([]*Node{sum.Max, sum.Sum, sum.Out}, x.k.nodes(in)...)
				return append(list, x.k.byMultiplyAdds().nodes(in)...)
			})
			k, tolerance := x.k, x.k.tolerance()
			inputs, other := out[3:3+k.inputs()], out[3+k.inputs():]
			for _, k.splits = range []int{1, 3} {
				requireParts(t, fmt.Sprintf("%d splits", k.splits), tolerance, k.runOnHost(inputs, ptx.Late), hostParts(out[:3]))
				if k.units {
					requireParts(t, "copies at once", tolerance, k.runOnHost(inputs, ptx.Early), hostParts(out[:3]))
				}
			}
			if k.units {
				requireParts(t, "by multiply-adds", 1e-5, k.byMultiplyAdds().runOnHost(other, ptx.Late), hostParts(out[:3]))
			}
		})
	}
}

// Keys and values of 1e18 leave answers finite, and as graph operations have them: what codes are
// pre-scaled by does not make scales infinite.
func TestKernelWithLargeScales(t *testing.T) {
	for _, c := range largeCases() {
		t.Run(c.name, func(t *testing.T) {
			x := newLargeTest(t, c)
			out := x.call(t, testbackend.XLA(t), func(in Inputs) []*Node {
				sum := x.k.graph(in, attend.Tiles)
				return append([]*Node{sum.Max, sum.Sum, sum.Out}, x.k.nodes(in)...)
			})
			requireParts(t, "1e18", x.k.tolerance(), x.k.runOnHost(out[3:], ptx.Late), hostParts(out[:3]))
		})
	}
}

func TestKernelWithLargeScalesOnCUDA(t *testing.T) {
	backend := testbackend.CUDA(t)
	for _, c := range largeCases() {
		t.Run(c.name, func(t *testing.T) { newLargeTest(t, c).requireOnCUDA(t, backend) })
	}
}

// largeCases are layers whose scales are stored in the cache's dtype, made float32.
func largeCases() (list []scoredCase) {
	for _, c := range scoredCases() {
		switch c.name {
		case "tutorial", "units, five queries a head, sliding", "units, keys per channel, sliding", "bytes, keys per channel, sliding", "quanto 2 bit", "both per channel, groups of 64 and 32", "tutorial, heads of 100":
			c.dtype, c.key.scales, c.value.scales = dtypes.Float32, numbers.ScaleFloat32, numbers.ScaleFloat32
			list = append(list, c)
		}
	}
	return list
}

// newLargeTest is a kernelTest whose keys and values are 1e18 times as large.
func newLargeTest(t *testing.T, c scoredCase) kernelTest {
	x := newKernelTest(t, c)
	for _, a := range x.state[4:] { // exact keys and values, codes, scales and zero points
		if a := a.(*tensors.Tensor); a.DType() == dtypes.Float32 {
			a.MustMutableFlatData(func(flat any) {
				for i := range flat.([]float32) {
					flat.([]float32)[i] *= 1e18
				}
			})
		}
	}
	return x
}

// The same on a GPU, as XLA compiles it.
func TestKernelOnCUDA(t *testing.T) {
	backend := testbackend.CUDA(t)
	t.Logf("%+v", gpu.Of(backend))
	for _, c := range scoredCases() {
		t.Run(c.name, func(t *testing.T) { newKernelTest(t, c).requireOnCUDA(t, backend) })
	}
}

// requireOnCUDA compares the kernel with graph operations, both on the GPU.
func (x kernelTest) requireOnCUDA(t *testing.T, backend compute.Backend) {
	t.Helper()
	on := gpu.Of(backend)
	form, reason := attend.Choose(attend.Query{Device: on, Devices: 1, Tokens: 1, Key: x.k.Key, Value: x.k.Value, Queries: dtypes.Float32})
	if form != attend.Kernel {
		t.Errorf("the form on this GPU is %s: %s", form, reason)
	}
	x.k.Processors = on.Processors
	x.k = New(x.k.Shape)
	out := x.call(t, backend, func(in Inputs) []*Node {
		kernel, graph := x.k.Attend(in), x.k.graph(in, attend.Words)
		return []*Node{kernel.Max, kernel.Sum, kernel.Out, graph.Max, graph.Sum, graph.Out}
	})
	requireParts(t, "on CUDA", 5e-5, hostParts(out[:3]), hostParts(out[3:]))
}

// parts is an attend.Partial on the host, by query of a head of a row.
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
func (k Attention) runOnHost(inputs []*tensors.Tensor, copies ptx.Copies) parts {
	defer runtime.KeepAlive(inputs) // whose memory is read below
	rows := k.Batch * k.Heads * k.Queries
	room := func(n int) parts {
		return parts{make([]float32, n), make([]float32, n), make([]float32, n*k.width())}
	}
	var memory ttir.Memory
	for _, x := range inputs {
		x.MustConstFlatData(func(flat any) { memory = append(memory, flat) })
	}
	all, merged := room(k.programs()*rows), room(rows)
	memory = append(memory, all.max, all.sum, all.out)
	heads := k.Batch * k.Heads * k.programsOfHead()
	if k.units {
		k.buildUnits().Run([2]int{heads, k.programs()}, ptx.Memory(memory), copies)
	} else {
		k.build().Run([3]int{heads, k.programs(), 1}, memory)
	}
	joined := ttir.Memory{all.max, all.sum, all.out, merged.max, merged.sum, merged.out}
	exact := make([]float32, len(merged.out))
	if k.outputs() > 1 {
		joined = append(joined, exact)
	}
	k.buildMerge().Run([3]int{rows, k.width() / mergeChannels, 1}, joined)
	merged.out, exact = k.hostChannels(merged.out), k.hostChannels(exact)
	if k.outputs() > 1 { // rotated back, and added
		h := numbers.Hadamard(k.dim())
		for at := 0; at < len(exact); at += k.dim() {
			rotated := merged.out[at : at+k.dim()]
			back := slices.Clone(exact[at : at+k.dim()])
			for i := range back {
				for j, x := range rotated {
					back[i] += x * h[i][j]
				}
			}
			copy(rotated, back)
		}
	}
	return merged
}

// hostChannels takes the channels out of the kernel's lanes.
func (k Attention) hostChannels(x []float32) (out []float32) {
	groups, lanes := attend.KernelLanes(k.Value)
	each := k.dim() / k.Value.Groups()
	for at := 0; at < len(x); at += groups * lanes {
		for g := range k.Value.Groups() {
			out = append(out, x[at+g*lanes:at+g*lanes+each]...)
		}
	}
	return out
}

// inputs is how many nodes it has.
func (k Attention) inputs() int {
	n := 7 + len(k.Key.Arrays(1, 1, 32, k.CacheType)) + len(k.Value.Arrays(1, 1, 32, k.CacheType))
	if k.Key.Rotate && !k.rotatesInside() {
		n++
	}
	if len(k.Scores.Slopes) > 0 {
		n++
	}
	return n
}

// byMultiplyAdds is the other form of a kernel by tensor units.
func (k Attention) byMultiplyAdds() Attention {
	k.units = false
	return k.cut()
}

// Tensor units are for three queries a head or more, for keys with scales of channels, and for what
// their slices hold.
func TestWhatGoesByUnits(t *testing.T) {
	tutorial := coding{bits: 4, group: 32}
	perChannel := coding{bits: 5, group: 64, perChannel: true, scales: numbers.ScaleFloat16}
	for _, c := range []struct {
		name         string
		key, value   coding
		queries, dim int
		want         bool
	}{
		{"one query", tutorial, tutorial, 1, 128, false},
		{"two queries", tutorial, tutorial, 2, 128, false},
		{"three queries", tutorial, tutorial, 3, 64, true},
		{"keys per channel", perChannel, tutorial, 4, 128, true},
		{"keys per channel, one query", perChannel, tutorial, 1, 128, true},
		{"values per channel", tutorial, perChannel, 4, 128, false},
		{"large heads", tutorial, tutorial, 4, 256, false},
		{"padded heads", tutorial, tutorial, 4, 96, false},
		{"groups of 16", coding{bits: 4, group: 16}, tutorial, 4, 128, false},
		{"scales in bytes", coding{bits: 4, group: 32, scales: numbers.Scale8}, coding{bits: 4, group: 32, scales: numbers.Scale8}, 4, 128, true},
		{"scales of tokens", coding{bits: 4, group: 32, perChannel: true, tokenScales: true}, tutorial, 4, 128, true},
	} {
		k := New(Shape{Key: c.key.format(true, c.dim), Value: c.value.format(false, c.dim), Batch: 1, Heads: 8, Queries: c.queries,
			Blocks: 8, CacheType: dtypes.BFloat16, QueryType: dtypes.BFloat16})
		if k.units != c.want {
			t.Errorf("%s: by tensor units: %v, want %v", c.name, k.units, c.want)
		}
	}
}

// tolerance is what the kernel may differ by on the host: see requireParts.
func (k Attention) tolerance() float64 {
	if k.units {
		return 3e-5 // 16 bits of a query count
	}
	return 1e-5
}

// requireParts allows rounding of sums in float32: scores of some tens, to tolerance, and weights
// to ten times of it.
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

// The programs that read codes fill an H100 a whole number of times, as well as there are blocks
// for them.
func TestKernelPrograms(t *testing.T) {
	tutorial := coding{bits: 4, group: 32}
	for _, c := range []struct{ batch, capacity, want int }{
		{1, 32768, 49}, // 1,568 of 1,584
		{1, 1024, 32},  // as many as there are blocks
		{8, 4096, 6},   // 1,536
		{20, 4096, 7},  // 4,480 of 3 x 1,584
		{32, 4096, 3},  // 3,072 of 2 x 1,584
	} {
		for _, processors := range []int{0, 132} { // one that does not tell is taken for an H100
			k := New(Shape{
				Key: tutorial.format(true, 128), Value: tutorial.format(false, 128),
				Batch: c.batch, Heads: 32, Queries: 1, Blocks: c.capacity / codes.BlockTokens, Exact: 64,
				CacheType: dtypes.BFloat16, QueryType: dtypes.BFloat16, Processors: processors,
			})
			if k.splits != c.want {
				t.Errorf("batch %d, %d tokens, %d processors: %d programs a head, want %d", c.batch, c.capacity, processors, k.splits, c.want)
			}
		}
	}
}

// Programs by tensor units are eight a processor, or have at least eight blocks each: an H200. With
// one query and keys per channel a processor runs 16 of them, or 12 where both sides have two
// planes.
func TestUnitsPrograms(t *testing.T) {
	tutorial := coding{bits: 4, group: 32}
	lowest := coding{bits: 2, group: 32, perChannel: true, scales: numbers.Scale8}
	balanced := coding{bits: 5, group: 64, perChannel: true, scales: numbers.ScaleFloat16}
	fourBits := coding{bits: 4, group: 64, scales: numbers.ScaleFloat16}
	quality := coding{bits: 6, group: 64, perChannel: true, scales: numbers.ScaleFloat16}
	for _, x := range []struct {
		key, value               coding
		batch, heads, queries    int
		capacity, want, resident int
	}{
		{tutorial, tutorial, 1, 8, 4, 32768, 132, 12},           // 1,056 programs of 7 or 8 blocks
		{tutorial, tutorial, 1, 8, 4, 4096, 64, 12},             // 2 blocks
		{tutorial, tutorial, 8, 8, 4, 32768, 24, 12},            // 1,536 of 1,584, with 42 blocks
		{lowest, lowest.perTokens(64), 1, 32, 1, 32768, 66, 16}, // 2,112
		{balanced, fourBits, 1, 32, 1, 32768, 66, 16},
		{balanced, fourBits, 32, 32, 1, 4096, 2, 16},             // 2,048 of 2,112
		{quality, quality.perTokens(64), 32, 32, 1, 4096, 3, 12}, // 3,072 of 2 x 1,584
	} {
		k := New(Shape{Key: x.key.format(true, 128), Value: x.value.format(false, 128), Batch: x.batch, Heads: x.heads, Queries: x.queries,
			Blocks: x.capacity / codes.BlockTokens, Exact: 64, CacheType: dtypes.BFloat16, QueryType: dtypes.BFloat16, Processors: 132})
		if k.splits != x.want || k.resident() != x.resident {
			t.Errorf("%+v: %d programs a head, %d at once, want %d and %d", x, k.splits, k.resident(), x.want, x.resident)
		}
	}
}

func (c coding) ofGroup(group int) coding {
	c.group = group
	return c
}

// perTokens is the coding of values beside it.
func (c coding) perTokens(group int) coding {
	c.perChannel, c.group = false, group
	return c
}

// A GPU with fewer processors gets fewer programs.
func TestKernelProgramsFollowTheGPU(t *testing.T) {
	c := coding{bits: 4, group: 32}
	s := Shape{Key: c.format(true, 128), Value: c.format(false, 128), Batch: 1, Heads: 32, Queries: 1, Blocks: 1024, Exact: 64,
		CacheType: dtypes.BFloat16, QueryType: dtypes.BFloat16, Processors: 58} // an L4
	if k := New(s); k.splits != 21 { // 672 of 696
		t.Errorf("%d programs a head, want 21", k.splits)
	}
}
