package codes

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/dtypes/bfloat16"
	"github.com/gomlx/compute/dtypes/float16"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/gomlx/gomlx/core/tensors"

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
}

func encodeCases() []encodeCase {
	spec := func(q *numbers.Quantizer, bits int, scales numbers.ScaleFormat, keys bool) numbers.Spec {
		return numbers.Spec{Quantizer: q, Bits: bits, Scales: scales, Keys: keys}
	}
	scaled := New(spec(numbers.Unbiased, 2, numbers.Scale8, true), 64, 32, true, false)
	scaled.TokenScales = true
	return []encodeCase{
		{"tutorial keys", New(spec(numbers.MinMax, 4, "", true), 64, 32, false, false), 64, dtypes.Float16, true},
		{"tutorial values", New(spec(numbers.MinMax, 4, "", false), 64, 32, false, false), 64, dtypes.BFloat16, false},
		{"quanto with two bits", New(spec(numbers.MinMax, 2, "", false), 32, 16, false, false), 32, dtypes.Float32, true},
		{"balanced keys", New(spec(numbers.Unbiased, 5, numbers.ScaleFloat16, true), 64, 64, true, false), 128, dtypes.Float16, true},
		{"balanced values", New(spec(numbers.Unbiased, 4, numbers.ScaleFloat16, false), 128, 64, false, false), 32, dtypes.Float16, true},
		{"quality values", New(spec(numbers.Unbiased, 6, numbers.ScaleBFloat16, false), 64, 64, false, false), 32, dtypes.BFloat16, false},
		{"lowest keys", scaled, 64, dtypes.Float16, true},
		{"smallest values", New(spec(numbers.Unbiased, 3, numbers.Scale8, false), 64, 64, false, false), 32, dtypes.Float32, true},
		{"values per channel", New(spec(numbers.Unbiased, 2, numbers.ScaleFloat16, false), 32, 64, true, false), 64, dtypes.Float32, false},
	}
}

const encodeRows, encodeHeads = 2, 2

// numbersOf are of a normal distribution, with loud channels, outliers and what is not finite, and
// which tokens are valid.
func (c encodeCase) numbersOf() (x *tensors.Tensor, valid []bool) {
	rng := rand.New(rand.NewPCG(5, uint64(c.format.Bits)))
	dim := c.format.HeadDim
	var flat []float32
	for i := range encodeRows * c.tokens * encodeHeads * dim {
		v := float32(rng.NormFloat64())
		if i%dim == 3 {
			v = 8*v + 20
		}
		switch rng.IntN(400) {
		case 0:
			v *= 30
		case 1:
			v = float32(math.NaN())
		case 2:
			v = float32(math.Inf(1 - 2*rng.IntN(2)))
		}
		flat = append(flat, v)
	}
	for i := range encodeRows * c.tokens {
		valid = append(valid, !c.masked || i%c.tokens < c.tokens-20)
	}
	dims := []int{encodeRows, c.tokens, encodeHeads, dim}
	switch c.dtype {
	case dtypes.Float16:
		return tensors.FromFlatDataAndDimensions(float16.FromFloat32s(flat...), dims...), valid
	case dtypes.BFloat16:
		var narrow []bfloat16.BFloat16
		for _, v := range flat {
			narrow = append(narrow, bfloat16.FromFloat32(v))
		}
		return tensors.FromFlatDataAndDimensions(narrow, dims...), valid
	}
	return tensors.FromFlatDataAndDimensions(flat, dims...), valid
}

// onBackend makes the arrays of blocks on a backend.
func (c encodeCase) onBackend(t *testing.T, backend compute.Backend, byKernel bool) (arrays []any) {
	t.Helper()
	x, valid := c.numbersOf()
	exec := MustNewExec(backend, func(x, valid *Node) []*Node {
		if !c.masked {
			valid = nil
		}
		e, ok := c.format.encoderOf(x, valid, nil)
		var blocks Blocks
		switch {
		case !byKernel:
			blocks = c.format.encodeByGraph(Transpose(x, 1, 2), valid, nil)
		case !ok:
			t.Error("the kernel does not run here")
			fallthrough
		default:
			blocks = e.encode(x, valid, nil)
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
	e = encoder{format: c.format, from: elems[c.dtype], batch: encodeRows, heads: encodeHeads, tokens: c.tokens, masked: c.masked}
	if !e.fits() {
		t.Fatal("the kernel does not fit")
	}
	memory = ttir.Memory{flatOf(x)}
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

// onHost makes the arrays by the kernel, executed on the host.
func (c encodeCase) onHost(t *testing.T) []any {
	t.Helper()
	e, memory := c.encoder(t)
	inputs := len(memory)
	for _, s := range e.outputs(c.dtype) {
		memory = append(memory, flatOf(tensors.FromShape(s)))
	}
	grid := e.grid()
	e.kernel().Run([3]int{grid[0], grid[1], 1}, memory)
	return memory[inputs:]
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
			least = 0.98
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
			c.requireSame(t, c.onHost(t), c.onBackend(t, testbackend.XLA(t), false))
		})
	}
}

// A GPU makes what the host makes of the same kernel.
func TestEncodeKernelOnCUDA(t *testing.T) {
	backend := testbackend.CUDA(t)
	for _, c := range encodeCases() {
		t.Run(c.name, func(t *testing.T) {
			c.requireSame(t, c.onBackend(t, backend, true), c.onHost(t))
		})
	}
}
