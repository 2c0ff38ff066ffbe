package numbers_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/dtypes/bfloat16"
	"github.com/gomlx/compute/dtypes/float16"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/kvqbook/kvqbook/kvq/internal/numbers"
)

// numbersToRound are float32 of all sizes that are normal numbers: random ones, ties and neighbours
// of float16 and bfloat16 numbers, the borders of both formats.
func numbersToRound() []float32 {
	random := rand.New(rand.NewPCG(7, 8))
	var out []float32
	add := func(v float32) {
		if a := math.Abs(float64(v)); a == 0 || a >= 0x1p-126 && a <= math.MaxFloat32 {
			out = append(out, v, -v)
		}
	}
	for range 2000 {
		add(math.Float32frombits(random.Uint32()))
		add(float32(math.Ldexp(random.Float64(), random.IntN(44)-28)))
		h := float16.FromBits(uint16(random.IntN(0x7bff)))
		next := float16.FromBits(h.Bits() + 1)
		for _, v := range []float32{h.Float32(), (h.Float32() + next.Float32()) / 2} {
			add(v)
			add(math.Nextafter32(v, 0))
			add(math.Nextafter32(v, math.MaxFloat32))
		}
		bits := random.Uint32()&0x7fff0000 | 0x8000 // a tie of bfloat16
		add(math.Float32frombits(bits))
		add(math.Float32frombits(bits - 1))
		add(math.Float32frombits(bits + 1))
	}
	for _, v := range []float32{0, 65504, 65519, 65520, 65536, 0x1p-14, 0x1p-24, 0x1p-25, 0x1.8p-25, math.MaxFloat32, 0x1.fep127} {
		add(v)
	}
	return out
}

// Rounding on the bits is the same as conversion in software, for float16 with its small numbers
// and for bfloat16.
func TestRoundTo(t *testing.T) {
	x := numbersToRound()
	got := evaluate(t, func(xs []*Node) []*Node {
		return []*Node{numbers.RoundTo(xs[0], dtypes.Float16), numbers.RoundTo(xs[0], dtypes.BFloat16), numbers.RoundTo(xs[0], dtypes.Float32)}
	}, x)
	for i, v := range x {
		if want := float16.FromFloat32(v).Float32(); got[0][i] != want {
			t.Errorf("float16 of %x: %x, wanted %x", v, got[0][i], want)
		}
		if want := bfloat16.FromFloat32(v).Float32(); got[1][i] != want {
			t.Errorf("bfloat16 of %x: %x, wanted %x", v, got[1][i], want)
		}
		if got[2][i] != v {
			t.Errorf("float32 of %x: %x", v, got[2][i])
		}
	}
}

// Directed rounding gives the nearest number of the format on the wanted side, and saturates.
func TestDirectedRounding(t *testing.T) {
	x := numbersToRound()
	got := evaluate(t, func(xs []*Node) []*Node {
		return []*Node{numbers.RoundUp(xs[0], dtypes.Float16), numbers.RoundDown(xs[0], dtypes.Float16),
			numbers.RoundUp(xs[0], dtypes.BFloat16), numbers.RoundDown(xs[0], dtypes.BFloat16)}
	}, x)
	check := func(name string, largest float32, x, up, down float32, isNumber func(float32) bool) {
		if !isNumber(up) || !isNumber(down) {
			t.Errorf("%s: %x is rounded to %x and %x, which are no numbers of it", name, x, down, up)
		}
		clamped := min(max(x, -largest), largest)
		if down > clamped || up < clamped || isNumber(clamped) && (up != clamped || down != clamped) {
			t.Errorf("%s: %x is rounded to %x and %x", name, x, down, up)
		}
		// Nothing lies between the two: their middle is no number of the format, unless they are
		// the same.
		if middle := down/2 + up/2; up != down && isNumber(middle) {
			t.Errorf("%s: %x is rounded to %x and %x, but %x lies between", name, x, down, up, middle)
		}
	}
	for i, v := range x {
		check("float16", 65504, v, got[0][i], got[1][i], func(v float32) bool { return float16.FromFloat32(v).Float32() == v })
		check("bfloat16", 0x1.fep127, v, got[2][i], got[3][i], func(v float32) bool { return bfloat16.FromFloat32(v).Float32() == v })
	}
}

// The scale in a byte, by the definition of its format: all its 256 numbers come back, and other
// scales go to the next one above.
func TestByteScale(t *testing.T) {
	var values []float32
	for code := range 256 {
		e, m := code>>4, float64(code&15)
		v := math.Ldexp(1+m/16, e-9)
		if e == 0 {
			v = math.Ldexp(m/16, -8)
		}
		values = append(values, float32(v))
	}
	random := rand.New(rand.NewPCG(9, 10))
	x := slices.Clone(values)
	for range 2000 {
		x = append(x, float32(math.Ldexp(1+random.Float64(), random.IntN(26)-16)))
	}
	got := evaluate(t, func(xs []*Node) []*Node {
		code := numbers.ToByteScale(xs[0])
		return []*Node{code, numbers.FromByteScale(code)}
	}, x)
	for i, v := range x {
		at, _ := slices.BinarySearch(values, v)
		at = min(at, len(values)-1)
		if got[0][i] != float32(at) || got[1][i] != values[at] {
			t.Errorf("%x has code %v and comes back as %x, wanted %d and %x", v, got[0][i], got[1][i], at, values[at])
		}
	}
}

// divideByConstant is the correctly rounded quotient, which XLA's own division by a constant is
// not.
func TestDivideByConstant(t *testing.T) {
	random := rand.New(rand.NewPCG(11, 12))
	x := make([]float32, 20000)
	for i := range x {
		x[i] = float32(math.Ldexp(1+random.Float64(), random.IntN(60)-30))
	}
	steps := []float64{3, 7, 15, 31, 63, 127, 255, 448}
	got := evaluate(t, func(xs []*Node) (out []*Node) {
		for _, c := range steps {
			out = append(out, numbers.DivideByConstant(xs[0], c))
		}
		return out
	}, x)
	for k, c := range steps {
		want := make([]float32, len(x))
		for i := range x {
			want[i] = x[i] / float32(c)
		}
		requireSame(t, "quotients", want, got[k])
	}
}

// Values that float16 cannot hold saturate: scale and zero point stay finite, and values in reach
// stay right.
func TestFloat16ScalesSaturate(t *testing.T) {
	x := [][]float32{{1e30, -1e30, 0, 5}, {-1e6, -1e6, -1e6, -1e6}, {1e6, 70000, 1e6, 70001}, {-60000, 60000, 0, 30000}}
	got := evaluate(t, func(xs []*Node) []*Node {
		codes, scale, zero := quantizeStored(xs[0], 1, 4, nil, numbers.ScaleFloat16, numbers.MinMax)
		if scale.DType() != dtypes.Float16 || zero.DType() != dtypes.Float16 {
			t.Errorf("stored as %s and %s", scale.DType(), zero.DType())
		}
		return []*Node{scale, zero, dequantizeStored(codes, scale, zero, 4, numbers.ScaleFloat16)}
	}, x)
	for i := range x {
		if math.Abs(float64(got[0][i])) > 65504 || math.Abs(float64(got[1][i])) > 65504 {
			t.Errorf("%v: scale %v, zero point %v", x[i], got[0][i], got[1][i])
		}
	}
	// A range of 120000: quanto in float16 gives NaN, a step of 8000 holds it.
	for i, v := range x[3] {
		if e := math.Abs(float64(got[2][12+i] - v)); e > 4001 {
			t.Errorf("%v came back as %v", v, got[2][12+i])
		}
	}
}

// What is stored takes the bytes that the format promises.
func TestScaleFormatBytes(t *testing.T) {
	x := tensors.FromFlatDataAndDimensions(make([]float32, 64), 2, 32)
	for format, bytes := range map[numbers.ScaleFormat]int{numbers.ScaleFloat32: 4, numbers.ScaleFloat16: 2, numbers.ScaleBFloat16: 2, numbers.Scale8: 1} {
		evaluate(t, func(xs []*Node) []*Node {
			codes, scale, zero := quantizeStored(xs[0], 1, 4, nil, format, numbers.MinMax)
			if int(scale.Shape().ByteSize()) != 2*bytes || int(zero.Shape().ByteSize()) != 2*bytes || scale.DType() != format.DType(dtypes.Float32) {
				t.Errorf("%s: scale %s, zero point %s", format, scale.Shape(), zero.Shape())
			}
			return []*Node{codes}
		}, x)
		if err := format.Check(); err != nil {
			t.Error(err)
		}
	}
	if err := numbers.ScaleFormat("float9").Check(); err == nil {
		t.Error("float9 is taken for a format")
	}
}
