package codes

import (
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/dtypes/bfloat16"
	"github.com/gomlx/compute/dtypes/float16"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/ptx"
	"github.com/kvqbook/kvqbook/internal/testbackend"
	"github.com/kvqbook/kvqbook/internal/ttir"
	"github.com/kvqbook/kvqbook/kvq/internal/numbers"
)

// encodeCase is keys or values, [2, tokens, 2, D], and their format.
type encodeCase struct {
	name   string
	format Format
	tokens int
	dtype  dtypes.DType
	masked bool
	finite bool // all numbers are, and one token of each row is next to nothing
}

func encodeCases() []encodeCase {
	spec := func(q *numbers.Quantizer, bits int, scales numbers.ScaleFormat, keys bool) numbers.Spec {
		return numbers.Spec{Quantizer: q, Bits: bits, Scales: scales, Keys: keys}
	}
	scaled := New(spec(numbers.Unbiased, 2, numbers.Scale8, true), 64, 32, true, false)
	scaled.TokenScales = true
	lanes := func(bits, dim, group int, scales numbers.ScaleFormat, tokenScales bool) Format {
		f := New(spec(numbers.Unbiased, bits, scales, true), dim, group, true, true)
		f.TokenScales = tokenScales
		return f
	}
	return []encodeCase{
		{"tutorial keys", New(spec(numbers.MinMax, 4, "", true), 64, 32, false, false), 64, dtypes.Float16, true, false},
		{"tutorial values", New(spec(numbers.MinMax, 4, "", false), 64, 32, false, false), 64, dtypes.BFloat16, false, false},
		{"quanto with two bits", New(spec(numbers.MinMax, 2, "", false), 32, 16, false, false), 32, dtypes.Float32, true, false},
		{"balanced keys", New(spec(numbers.Unbiased, 5, numbers.ScaleFloat16, true), 64, 64, true, true), 128, dtypes.Float16, true, false},
		{"balanced values", New(spec(numbers.Unbiased, 4, numbers.ScaleFloat16, false), 128, 64, false, true), 32, dtypes.Float16, true, false},
		{"quality values", New(spec(numbers.Unbiased, 6, numbers.ScaleBFloat16, false), 64, 64, false, false), 32, dtypes.BFloat16, false, false},
		{"lowest keys", scaled, 64, dtypes.Float16, true, false},
		{"smallest values", New(spec(numbers.Unbiased, 3, numbers.Scale8, false), 64, 64, false, true), 32, dtypes.Float16, true, false},
		{"values per channel", New(spec(numbers.Unbiased, 2, numbers.ScaleFloat16, false), 32, 64, true, false), 64, dtypes.Float32, false, false},
		{"a lane a channel, 2 bits", lanes(2, 128, 32, numbers.Scale8, true), 64, dtypes.Float16, true, false},
		{"… all finite", lanes(2, 128, 32, numbers.Scale8, true), 64, dtypes.Float16, true, true},
		{"a lane a channel, 3 bits", lanes(3, 64, 64, numbers.Scale8, true), 128, dtypes.BFloat16, true, false},
		{"… all finite and valid", lanes(3, 64, 64, numbers.Scale8, true), 128, dtypes.BFloat16, false, true},
		{"a lane a channel, 5 bits", lanes(5, 128, 64, numbers.ScaleFloat16, false), 128, dtypes.Float16, true, true},
		{"a lane a channel, 8 bits", lanes(8, 32, 32, "", false), 32, dtypes.BFloat16, false, true},
		{"a lane a channel, 1 bit", lanes(1, 64, 64, numbers.Scale8, true), 64, dtypes.Float16, true, false},
		{"a lane a token, 1 bit", New(spec(numbers.Unbiased, 1, numbers.Scale8, false), 64, 64, false, true), 64, dtypes.Float16, true, false},
		{"a lane a token, 4 bits", New(spec(numbers.Unbiased, 4, numbers.ScaleFloat16, false), 128, 64, false, true), 64, dtypes.Float16, true, true},
		{"a lane a token, 2 bits", New(spec(numbers.Unbiased, 2, numbers.Scale8, false), 128, 64, false, true), 64, dtypes.Float16, true, true},
		{"a lane a token, 6 bits", New(spec(numbers.Unbiased, 6, "", false), 32, 32, false, true), 64, dtypes.BFloat16, false, false},
		{"a lane a channel, 6 bits", lanes(6, 256, 32, numbers.ScaleFloat16, true), 32, dtypes.Float16, false, true},
	}
}

const encodeRows, encodeHeads = 2, 2

// firstTokens are where the tokens of each row begin: in the second one, the last tokens are its
// last one again. moreTokens are there beside them.
var firstTokens = []int32{1, 5}

const moreTokens = 2

func (c encodeCase) first(g *Graph) *Node { return Const(g, firstTokens) }

// aligned brings them side by side, [B, K, T, D], and rotates them where that is to be.
func (c encodeCase) aligned(x *Node) *Node {
	g := x.Graph()
	at := Add(Iota(g, shapes.Make(dtypes.Int32, encodeRows, c.tokens), 1), gx.BroadcastToDims(Reshape(c.first(g), encodeRows, 1), encodeRows, c.tokens))
	x = Transpose(gx.TakeAt(x, gx.MinScalar(at, c.tokens+moreTokens-1)), 1, 2)
	if c.format.Rotate {
		x = numbers.Rotate(x)
	}
	return x
}

// numbersOf are of a normal distribution, with loud channels, outliers and what is not finite, and
// which tokens are valid.
func (c encodeCase) numbersOf() (x *tensors.Tensor, valid []bool) {
	rng := rand.New(rand.NewPCG(5, uint64(c.format.Bits)))
	dim := c.format.HeadDim
	var flat []float32
	for i := range encodeRows * (c.tokens + moreTokens) * encodeHeads * dim {
		v := float32(rng.NormFloat64())
		if i%dim == 3 {
			v = 8*v + 20
		}
		switch kind := rng.IntN(400); {
		case kind == 0:
			v *= 30
		case kind == 1 && !c.finite:
			v = float32(math.NaN())
		case kind == 2 && !c.finite:
			v = float32(math.Inf(1 - 2*rng.IntN(2)))
		}
		if c.finite && i/(encodeHeads*dim)%(c.tokens+moreTokens) == 6 {
			v *= 3e-5
		}
		flat = append(flat, v)
	}
	for i := range encodeRows * c.tokens {
		valid = append(valid, !c.masked || i%c.tokens < c.tokens-20)
	}
	dims := []int{encodeRows, c.tokens + moreTokens, encodeHeads, dim}
	return numbersIn(c.dtype, flat, dims...), valid
}

// numbersIn are numbers in a dtype.
func numbersIn(dtype dtypes.DType, flat []float32, dims ...int) *tensors.Tensor {
	switch dtype {
	case dtypes.Float16:
		return tensors.FromFlatDataAndDimensions(float16.FromFloat32s(flat...), dims...)
	case dtypes.BFloat16:
		var narrow []bfloat16.BFloat16
		for _, v := range flat {
			narrow = append(narrow, bfloat16.FromFloat32(v))
		}
		return tensors.FromFlatDataAndDimensions(narrow, dims...)
	}
	return tensors.FromFlatDataAndDimensions(flat, dims...)
}

// onBackend makes the arrays of blocks on a backend; the kernel's have so many empty slots.
func (c encodeCase) onBackend(t *testing.T, backend compute.Backend, empty int, byKernel bool) (arrays []any) {
	t.Helper()
	x, valid := c.numbersOf()
	exec := MustNewExec(backend, func(x, valid *Node) []*Node {
		if !c.masked {
			valid = nil
		}
		e, ok := c.format.encoderOf(x, c.tokens, c.tokens+empty, valid, nil)
		var blocks Blocks
		switch {
		case !byKernel:
			blocks = c.format.encodeByGraph(c.aligned(x), valid, nil)
		case !ok:
			t.Error("the kernel does not run here")
			fallthrough
		default:
			blocks = e.encode(x, c.first(x.Graph()), valid, nil)
		}
		return blocks.Nodes()
	})
	defer exec.Finalize()
	for _, x := range exec.MustCall(x, tensors.FromFlatDataAndDimensions(valid, encodeRows, c.tokens)) {
		arrays = append(arrays, flatOf(x))
	}
	return arrays
}

// encoder is the kernel's, and the memory that it reads.
func (c encodeCase) encoder(t *testing.T) (e encoder, memory ttir.Memory) {
	t.Helper()
	x, valid := c.numbersOf()
	e = encoder{format: c.format, from: elems[c.dtype], batch: encodeRows, heads: encodeHeads, tokens: c.tokens, slots: c.tokens, all: c.tokens + moreTokens, masked: c.masked}
	if !e.fits() {
		t.Fatal("the kernel does not fit")
	}
	memory = ttir.Memory{flatOf(x), firstTokens}
	if c.format.Rotate && !e.byLanes() {
		memory[0] = flatOf(MustExecOnce(testbackend.XLA(t), func(x *Node) *Node { return numbers.Rotate(x) }, x))
	}
	if c.masked {
		bytes := make([]uint8, len(valid))
		for i, v := range valid {
			if v {
				bytes[i] = 1
			}
		}
		memory = append(memory, bytes)
	}
	return e, memory
}

// onHost makes the arrays by the kernel, executed on the host, with so many empty slots.
func (c encodeCase) onHost(t *testing.T, empty int) []any {
	t.Helper()
	e, memory := c.encoder(t)
	e.slots += empty
	inputs := len(memory)
	for _, s := range e.outputs(c.dtype) {
		memory = append(memory, unwritten(s))
	}
	grid := e.grid()
	e.run(grid, memory)
	return memory[inputs:]
}

// unwritten is memory of which no element is 0.
func unwritten(s shapes.Shape) any {
	switch s.DType {
	case dtypes.Float32:
		return slices.Repeat([]float32{7}, s.Size())
	case dtypes.Float16:
		return slices.Repeat([]float16.Float16{7}, s.Size())
	case dtypes.BFloat16:
		return slices.Repeat([]bfloat16.BFloat16{7}, s.Size())
	case dtypes.Uint8:
		return slices.Repeat([]uint8{7}, s.Size())
	}
	return slices.Repeat([]uint32{7}, s.Size())
}

// requireEmptyBehind checks that arrays with empty slots are those without, and zeros.
func requireEmptyBehind(t *testing.T, got, want []any) {
	t.Helper()
	for i := range want {
		got, want := reflect.ValueOf(got[i]), reflect.ValueOf(want[i])
		if got.Len() <= want.Len() {
			t.Fatalf("array %d: %d elements with empty slots, %d without", i, got.Len(), want.Len())
		}
		for j := range got.Len() {
			value := reflect.Zero(got.Type().Elem())
			if j < want.Len() {
				value = want.Index(j)
			}
			if !sameBits(got.Index(j), value) {
				t.Fatalf("array %d, element %d of %d: %v, want %v", i, j, got.Len(), got.Index(j), value)
			}
		}
	}
}

func sameBits(a, b reflect.Value) bool {
	if a.CanFloat() {
		return math.Float64bits(a.Float()) == math.Float64bits(b.Float())
	}
	return a.Uint() == b.Uint()
}

// Slots beyond the tokens are those of an empty cache, and change nothing of the others.
func TestEncodeKernelEmptySlots(t *testing.T) {
	for _, c := range encodeCases() {
		t.Run(c.name, func(t *testing.T) {
			e, _ := c.encoder(t)
			requireEmptyBehind(t, c.onHost(t, 2*e.atOnce()), c.onHost(t, 0))
		})
	}
}

// run executes the kernel on the host.
func (e encoder) run(grid [2]int, memory ttir.Memory) {
	if e.byLanes() {
		e.laneKernel().Run(grid, ptx.Memory(memory), ptx.Late)
	} else {
		e.kernel().Run([3]int{grid[0], grid[1], 1}, memory)
	}
}

func flatOf(x *tensors.Tensor) (flat any) {
	switch x.DType() {
	case dtypes.Float32:
		return tensors.MustCopyFlatData[float32](x)
	case dtypes.Float16:
		return tensors.MustCopyFlatData[float16.Float16](x)
	case dtypes.BFloat16:
		return tensors.MustCopyFlatData[bfloat16.BFloat16](x)
	case dtypes.Uint8:
		return tensors.MustCopyFlatData[uint8](x)
	}
	return tensors.MustCopyFlatData[uint32](x)
}

// sameShare is the part of elements that two flat arrays have in common.
func sameShare(a, b any) float64 {
	switch a := a.(type) {
	case []float32:
		return share(a, b.([]float32))
	case []float16.Float16:
		return share(a, b.([]float16.Float16))
	case []bfloat16.BFloat16:
		return share(a, b.([]bfloat16.BFloat16))
	case []uint8:
		return share(a, b.([]uint8))
	case []uint32:
		return share(a, b.([]uint32))
	}
	panic(fmt.Sprintf("%T", a))
}

func share[T comparable](a, b []T) float64 {
	same := 0
	for i, v := range a {
		if v == b[i] {
			same++
		}
	}
	return float64(same) / float64(len(a))
}

// requireSame checks arrays: min-max ranges are the same bit for bit; an unbiased one is a sum,
// whose last bits depend on the order of its terms, and may be another where candidates cost the
// same.
func (c encodeCase) requireSame(t *testing.T, got, want []any) {
	t.Helper()
	for i := range want {
		least := 1.0
		switch {
		case c.format.Spec.Quantizer != numbers.Unbiased:
		case i == 0 && c.format.Feedback: // another range of a channel changes what follows it
			least = 0.8
		default:
			least = 0.95
		}
		if same := sameShare(got[i], want[i]); same < least {
			t.Errorf("%s: %.4f of it are the same", c.format.Arrays(1, 1, BlockTokens*8, c.dtype)[i].Kind, same)
		}
	}
}

// The kernel, executed on the host, makes what graph operations make.
func TestEncodeKernel(t *testing.T) {
	for _, c := range encodeCases() {
		t.Run(c.name, func(t *testing.T) {
			c.requireSame(t, c.onHost(t, 0), c.onBackend(t, testbackend.XLA(t), 0, false))
		})
	}
}

// A GPU makes what the host makes of the same kernel.
func TestEncodeKernelOnCUDA(t *testing.T) {
	backend := testbackend.CUDA(t)
	for _, c := range encodeCases() {
		t.Run(c.name, func(t *testing.T) {
			got := c.onBackend(t, backend, 0, true)
			c.requireSame(t, got, c.onHost(t, 0))
			requireEmptyBehind(t, c.onBackend(t, backend, 192, true), got)
		})
	}
}
