package codes

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/dtypes/bfloat16"
	"github.com/gomlx/compute/dtypes/float16"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/internal/ptx"
	"github.com/kvqbook/kvqbook/internal/testbackend"
	"github.com/kvqbook/kvqbook/kvq/internal/numbers"
)

// fedCases are keys whose errors are fed back: words of two and four channels a byte and the half
// words of a plane of 1 bit.
func fedCases() []encodeCase {
	keys := func(bits, group int, tokenScales bool, dim int, rotate bool) Format {
		f := New(numbers.Spec{Quantizer: numbers.Unbiased, Bits: bits, Scales: numbers.Scale8, Keys: true}, dim, group, true, rotate)
		f.TokenScales, f.Feedback = tokenScales, true
		return f
	}
	return []encodeCase{
		{"lowest", keys(2, 32, true, 64, false), 64, dtypes.Float16, true, false},
		{"smallest", keys(3, 64, true, 64, false), 128, dtypes.Float16, true, false},
		{"4 bits, no token scales", keys(4, 32, false, 32, false), 64, dtypes.Float32, false, false},
		{"lowest, rotated", keys(2, 32, true, 64, true), 64, dtypes.Float16, true, false},
		{"lowest, rotated, finite", keys(2, 32, true, 128, true), 64, dtypes.Float16, true, true},
		{"1 bit, rotated", keys(1, 64, true, 64, true), 128, dtypes.Float16, true, false},
		{"smallest, rotated, finite", keys(3, 64, true, 64, true), 128, dtypes.BFloat16, true, true},
		{"no token scales, rotated", keys(4, 32, false, 32, true), 64, dtypes.Float16, true, true},
		{"one block of channels", keys(2, 32, true, 16, false), 32, dtypes.Float32, true, false},
	}
}

// factorOf is a unit lower triangle without its diagonal, a head each; that of the last head is 0.
func (c encodeCase) factorOf() *tensors.Tensor {
	rng, dim := rand.New(rand.NewPCG(3, 4)), c.format.HeadDim
	flat := make([]float32, encodeRows*encodeHeads*dim*dim)
	for i := range flat {
		if row, column := i/dim%dim, i%dim; column < row && i < len(flat)-dim*dim {
			flat[i] = float32(0.15 * rng.NormFloat64())
		}
	}
	return tensors.FromFlatDataAndDimensions(flat, encodeRows, encodeHeads, dim, dim)
}

// fedOnBackend is [encodeCase.onBackend] with feedback.
func (c encodeCase) fedOnBackend(t *testing.T, backend compute.Backend, empty int, byKernel bool) (arrays []any) {
	t.Helper()
	x, valid := c.numbersOf()
	exec := MustNewExec(backend, func(x, valid, factor *Node) []*Node {
		if !c.masked {
			valid = nil
		}
		e, ok := c.format.encoderOf(x, c.tokens, c.tokens+empty, valid, factor)
		switch {
		case !byKernel:
			return c.format.encodeByGraph(c.aligned(x), valid, factor).Nodes()
		case !ok:
			t.Error("the kernels do not run here")
		}
		return e.encode(x, c.first(x.Graph()), valid, factor).Nodes()
	})
	defer exec.Finalize()
	for _, x := range exec.MustCall(x, tensors.FromFlatDataAndDimensions(valid, encodeRows, c.tokens), c.factorOf()) {
		arrays = append(arrays, flatOf(x))
	}
	return arrays
}

// fedOnHost makes the arrays by both kernels, executed on the host, with so many empty slots.
func (c encodeCase) fedOnHost(t *testing.T, empty int) []any {
	t.Helper()
	e, memory := c.encoder(t)
	e.fed = true
	e.slots += empty
	if !e.fits() || !e.fedFits() {
		t.Fatal("the kernels do not fit")
	}
	inputs := len(memory)
	for _, s := range e.outputs(c.dtype) {
		memory = append(memory, unwritten(s))
	}
	grid := e.grid()
	e.run(grid, memory)
	out := memory[inputs : len(memory)-e.fedInputs()]
	words := unwritten(c.format.Arrays(encodeRows, encodeHeads, e.slots, c.dtype)[0].Shape)
	made := memory[len(memory)-e.fedInputs():]
	e.fedKernel().Run(e.fedGrid(), append(append(ptx.Memory{}, made...), flatOf(c.factorOf()), words), ptx.Late)
	if same := sameShare(words, e.wordsOneByOne(made, flatOf(c.factorOf()).([]float32))); same < 0.998 {
		t.Errorf("%.4f of the words are what channels rounded one by one give", same)
	}
	return append([]any{words}, out...)
}

// wordsOneByOne rounds channel after channel what the first kernel wrote.
func (e encoder) wordsOneByOne(made []any, factor []float32) []uint32 {
	f, dim := e.format, e.format.HeadDim
	words := make([]uint32, f.Arrays(e.batch, e.heads, e.slots, dtypes.Float32)[0].Shape.Size())
	array := func(i int) []float32 { return made[len(made)-5+i].([]float32) } // ranges from 1 on
	units := func(row, token, d int) float64 {
		at := row*e.slots + token
		switch x := made[0].(type) {
		case []float16.Float16:
			return float64(x[at*dim+d].Float32() * made[1].([]float32)[at])
		case []bfloat16.BFloat16:
			return float64(x[at*dim+d].Float32() * made[1].([]float32)[at])
		}
		return float64(made[0].([]float32)[at*dim+d])
	}
	layout, last := f.Words(), float64(int(1)<<f.Bits-1)
	finite := func(x, or float64) float64 {
		if math.Abs(x) <= math.MaxFloat32 {
			return x
		}
		return or
	}
	for row := range e.batch * e.heads {
		for token := range e.tokens {
			wrong := make([]float64, dim)
			for d := dim - 1; d >= 0; d-- {
				x := units(row, token, d)
				group := (row*(e.slots/f.Group)+token/f.Group)*dim + d
				scale, zero, middle, perStep := float64(array(1)[group]), float64(array(2)[group]), float64(array(3)[group]), float64(array(4)[group])
				target := x
				for behind := d + 1; behind < dim; behind++ {
					target += wrong[behind] * float64(factor[(row*dim+behind)*dim+d])
				}
				code := math.RoundToEven(min(max((finite(target, x)-middle)*perStep+last/2, 0), last))
				if math.IsNaN(code) {
					code = 0
				}
				wrong[d] = finite(x-(code*scale+zero), 0)
				for _, p := range f.Planes() {
					word := d / p.Fields
					at := ((token/BlockTokens*e.batch*e.heads+row)*layout.Parts+word/p.Count)*f.WordsOfPart() + p.First + word%p.Count
					words[at*BlockTokens+token%BlockTokens] |= uint32(code) >> p.Low & (1<<p.Width - 1) << (d % p.Fields * p.Width)
				}
			}
		}
	}
	return words
}

// The kernels, executed on the host, make what graph operations make. A code that lies between two
// may be the other one where a sum was made in another order, and then those after it.
func TestFedKernel(t *testing.T) {
	for _, c := range fedCases() {
		t.Run(c.name, func(t *testing.T) {
			got, want := c.fedOnHost(t, 0), c.fedOnBackend(t, testbackend.XLA(t), 0, false)
			requireEmptyBehind(t, c.fedOnHost(t, 2*c.format.Group), got)
			c.requireSame(t, got, want)
			plain := c.onBackend(t, testbackend.XLA(t), 0, false)
			if c.tokens > 32 && sameShare(plain[0], want[0]) > 0.9 {
				t.Error("feedback changes next to nothing")
			}
		})
	}
}

// A GPU makes what the host makes of the same kernels.
func TestFedKernelOnCUDA(t *testing.T) {
	backend := testbackend.CUDA(t)
	for _, c := range fedCases() {
		t.Run(c.name, func(t *testing.T) {
			got := c.fedOnBackend(t, backend, 0, true)
			c.requireSame(t, got, c.fedOnHost(t, 0))
			requireEmptyBehind(t, c.fedOnBackend(t, backend, 192, true), got)
		})
	}
}
