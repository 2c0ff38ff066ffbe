package numbers_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/oracle"
	"github.com/kvqbook/kvqbook/internal/testbackend"
	"github.com/kvqbook/kvqbook/kvq/internal/codes"
	"github.com/kvqbook/kvqbook/kvq/internal/numbers"
)

var (
	nan      = float32(math.NaN())
	inf      = float32(math.Inf(1))
	allBits  = codes.AllBits()
	formats  = []numbers.ScaleFormat{numbers.ScaleFloat32, numbers.ScaleFloat16, numbers.ScaleBFloat16, numbers.Scale8}
	maxFloat = float32(math.MaxFloat32)
)

// evaluate runs build on XLA and returns its results as float32, flat.
func evaluate(t *testing.T, build func(xs []*Node) []*Node, inputs ...any) [][]float32 {
	t.Helper()
	out, err := MustNewExec(testbackend.XLA(t), func(xs []*Node) []*Node {
		results := build(xs)
		for i := range results {
			results[i] = ConvertDType(results[i], dtypes.Float32)
		}
		return results
	}).Exec(inputs...)
	if err != nil {
		t.Fatal(err)
	}
	flat := make([][]float32, len(out))
	for i := range out {
		flat[i] = tensors.MustCopyFlatData[float32](out[i])
	}
	return flat
}

// Three groups of five, 2 bits, so 3 steps.
//
//	-1, 0, 2, 4, 5:  scale 6/3 = 2, (x+1)/2 = 0 0.5 1.5 2.5 3, halves to even: 0 0 2 2 3 -> -1 -1 3 3 5
//	7, 7, 7, 7, 7:   scale 0, codes 0 -> 7
//	10, 13, 11, 12, 10.4: scale 1, codes 0 3 1 2 0 -> 10 13 11 12 10
func TestQuantizeByHand(t *testing.T) {
	x := [][]float32{{-1, 0, 2, 4, 5}, {7, 7, 7, 7, 7}, {10, 13, 11, 12, 10.4}}
	got := evaluate(t, func(xs []*Node) []*Node {
		codes, scale, zero := quantizeMinMax(xs[0], 1, 2, nil)
		return []*Node{codes, scale, zero, dequantize(codes, scale, zero)}
	}, x)
	requireSame(t, "codes", []float32{0, 0, 2, 2, 3, 0, 0, 0, 0, 0, 0, 3, 1, 2, 0}, got[0])
	requireSame(t, "scale", []float32{2, 0, 1}, got[1])
	requireSame(t, "zero", []float32{-1, 7, 10}, got[2])
	requireSame(t, "values", []float32{-1, -1, 3, 3, 5, 7, 7, 7, 7, 7, 10, 13, 11, 12, 10}, got[3])
}

// Symmetric, 3 bits: scale = 6/3 = 2, x/2 = -3, 0.5, 1.5, 0, 2.5 -> -3 0 2 0 2, codes + 4.
func TestQuantizeSymmetricByHand(t *testing.T) {
	got := evaluate(t, func(xs []*Node) []*Node {
		codes, scale := quantizeSymmetric(xs[0], 1, 3, nil, numbers.ScaleFloat32)
		return []*Node{codes, scale, dequantizeSymmetric(codes, scale, 3, numbers.ScaleFloat32)}
	}, [][]float32{{-6, 1, 3, 0, 5}})
	requireSame(t, "codes", []float32{1, 4, 6, 4, 6}, got[0])
	requireSame(t, "scale", []float32{2}, got[1])
	requireSame(t, "values", []float32{-6, 0, 4, 0, 4}, got[2])
}

// groupsForTest are 40 groups of g values: normal, shifted, tiny, large, with outliers, and
// constant ones.
func groupsForTest(g int) [][]float32 {
	random := rand.New(rand.NewPCG(3, uint64(g)))
	groups := make([][]float32, 40)
	for i := range groups {
		spread, shift := math.Pow(10, float64(i%7-3)), 0.0
		if i%3 == 1 {
			shift = spread * float64(i-20)
		}
		for j := range g {
			v := random.NormFloat64()*spread + shift
			if i%5 == 2 && j == 1 {
				v *= 30
			}
			if i%10 == 9 {
				v = shift + spread
			}
			groups[i] = append(groups[i], float32(v))
		}
	}
	return groups
}

// Every value lies within half a step of its code, whatever the format of scale and zero point:
// rounding those costs range, not accuracy.
func TestErrorIsAtMostHalfAStep(t *testing.T) {
	const g = 32
	x := groupsForTest(g)
	for _, format := range formats {
		t.Run(string(format), func(t *testing.T) {
			got := evaluate(t, func(xs []*Node) (out []*Node) {
				for _, bits := range allBits {
					codes, scale, zero := quantizeStored(xs[0], 1, bits, nil, format, numbers.MinMax)
					step := format.DecodeScale(scale)
					out = append(out, codes, step, format.DecodeZero(zero, step, bits), dequantizeStored(codes, scale, zero, bits, format))
				}
				return out
			}, x)
			for b, bits := range allBits {
				codes, step, values := got[4*b], got[4*b+1], got[4*b+3]
				if most := slices.Max(codes); most > float32(int(1)<<bits-1) {
					t.Errorf("%d bits: code %v", bits, most)
				}
				for i, group := range x {
					largest := largestOf(group)
					if format == numbers.Scale8 && largest > numbers.LargestByteScale {
						// beyond what the byte's largest scale is made for: such groups saturate
						continue
					}
					for j, v := range group {
						e := math.Abs(float64(values[i*g+j] - v))
						if limit := float64(step[i])/2*(1+1e-5) + largest*1e-6; e > limit {
							t.Errorf("%d bits: %v came back as %v with a step of %v, off by %v > %v", bits, v, values[i*g+j], step[i], e, limit)
						}
					}
					// Rounding must not cost much range either.
					span := float64(slices.Max(group)-slices.Min(group)) / float64(int(1)<<bits-1)
					slack := map[numbers.ScaleFormat]float64{numbers.ScaleFloat32: 1e-6, numbers.ScaleFloat16: 0.01, numbers.ScaleBFloat16: 0.1, numbers.Scale8: 0.25}[format]
					offset := largest * map[numbers.ScaleFormat]float64{numbers.ScaleFloat32: 0, numbers.ScaleFloat16: 0x1p-9, numbers.ScaleBFloat16: 0x1p-6, numbers.Scale8: 1.2 / (127 * numbers.ZeroUnit(bits))}[format]
					if float64(step[i]) > span*(1+slack)+offset+numbers.ByteScaleUnit {
						t.Errorf("%d bits: group %d has a step of %v, wanted about %v", bits, i, step[i], span)
					}
				}
			}
		})
	}
}

func largestOf(group []float32) (largest float64) {
	for _, v := range group {
		largest = max(largest, math.Abs(float64(v)))
	}
	return largest
}

// All that can be in a cache by accident. Finite input never comes back as NaN or infinity, in any
// format and any quantizer.
func TestNeverNaN(t *testing.T) {
	x := [][]float32{
		{0, 0, 0, 0},
		{-2.5, -2.5, -2.5, -2.5},
		{3e38, -3e38, 1, 2},
		{maxFloat, 5.7e34, 1e38, maxFloat},
		{-maxFloat, -maxFloat, -maxFloat, -maxFloat},
		{60000, -60000, 5, 6},
		{65504, 65000, -100, 0},
		{1e-40, -1e-40, 3e-41, 0},
		{1e-38, 1.5e-38, 2e-38, 1.2e-38},
		{1e30, -1e-30, 7, 1e20},
		{nan, 1, 2, 3},
		{nan, nan, nan, nan},
		{inf, 1, 2, 3},
		{-inf, inf, nan, -4},
		{inf, inf, inf, inf},
		{-inf, -inf, -inf, -inf},
	}
	names := []string{}
	for _, dtype := range []dtypes.DType{dtypes.Float32, dtypes.Float16, dtypes.BFloat16} {
		got := evaluate(t, func(xs []*Node) (out []*Node) {
			names = names[:0]
			add := func(name string, value *Node) { out, names = append(out, value), append(names, name) }
			x := ConvertDType(gx.ClampScalar(xs[0], -math.MaxFloat32, math.MaxFloat32), dtype)
			x = Where(IsFinite(xs[0]), x, ConvertDType(xs[0], dtype))
			for _, bits := range []int{2, 8} {
				codes, scale, zero := quantizeMinMax(x, 1, bits, nil)
				add(fmt.Sprintf("min-max %d", bits), dequantize(codes, scale, zero))
				for _, format := range []numbers.ScaleFormat{"", numbers.ScaleFloat16, numbers.Scale8} {
					format = format.Storage(dtype)
					codes, scale, zero = quantizeStored(x, 1, bits, nil, format, numbers.MinMax)
					add(fmt.Sprintf("stored %d %s", bits, format), dequantizeStored(codes, scale, zero, bits, format))
					codes, scale = quantizeSymmetric(x, 1, bits, nil, format)
					add(fmt.Sprintf("symmetric %d %s", bits, format), dequantizeSymmetric(codes, scale, bits, format))
				}
			}
			codes, scale, zero := quantizeStored(x, 1, 3, nil, numbers.ScaleFloat16, numbers.LeastSquares)
			add("search", dequantizeStored(codes, scale, zero, 3, numbers.ScaleFloat16))
			codes, scale = quantizeFloat8(x, 1, nil, numbers.ScaleFloat16)
			add("float8", dequantizeFloat8(codes, scale, numbers.ScaleFloat16))
			codes, scale = quantizeInt8(x, 1, nil, numbers.ScaleFloat16)
			add("int8", dequantizeInt8(codes, scale, numbers.ScaleFloat16))
			if dtype == dtypes.Float32 {
				codes, scale, zero = quantizeHQQ(x, 1, 4, nil, numbers.ScaleFloat32)
				add("hqq", dequantizeStored(codes, scale, zero, 4, numbers.ScaleFloat32))
			}
			return out
		}, x)
		for n, values := range got {
			for i, v := range values {
				if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
					t.Errorf("%s, %s: %v in %v came back as %v", dtype, names[n], x[i/4][i%4], x[i/4], v)
				}
			}
		}
	}
}

// A range that overflows is limited at both ends, so that a group that lies wholly beyond the limit
// never has a scale below 0. Whether such a range overflows is a matter of the last bit, and so of
// how XLA rounds: what is asked here holds either way.
func TestGroupsBeyondTheLimit(t *testing.T) {
	random := rand.New(rand.NewPCG(14, 9))
	for dtype, largest := range map[dtypes.DType]float64{dtypes.Float32: math.MaxFloat32, dtypes.Float16: 65504, dtypes.BFloat16: 0x1.fep127} {
		var x [][]float32
		for i := range 2000 {
			sign := float64(1 - i%2*2)
			group := []float32{float32(sign * largest), float32(sign * largest * (0.485 + random.Float64()/50)), float32(sign * largest * (0.51 + random.Float64()/3))}
			x = append(x, group)
		}
		for _, bits := range []int{2, 4, 6, 8} {
			got := evaluate(t, func(xs []*Node) []*Node {
				codes, scale, zero := quantizeMinMax(ConvertDType(xs[0], dtype), 1, bits, nil)
				return []*Node{scale, zero, dequantize(codes, scale, zero)}
			}, x)
			for i, scale := range got[0] {
				if zero := float64(got[1][i]); !(scale >= 0) || math.Abs(zero) > largest || zero*float64(x[i][0]) <= 0 {
					t.Errorf("%s, %d bits, %v: scale %v, zero %v", dtype, bits, x[i], scale, zero)
				}
			}
			for i, v := range got[2] {
				if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
					t.Errorf("%s, %d bits: %v in %v came back as %v", dtype, bits, x[i/3][i%3], x[i/3], v)
				}
			}
		}
	}
}

// What single odd values become, next to ordinary ones 1 and 4 that span the range, with 2 bits:
// levels 1 2 3 4.
func TestOddValues(t *testing.T) {
	got := evaluate(t, func(xs []*Node) []*Node {
		codes, scale, zero := quantizeMinMax(xs[0], 1, 2, nil)
		return []*Node{dequantize(codes, scale, zero)}
	}, [][]float32{{1, 4, nan, 3}, {1, 4, inf, 2}, {1, 4, -inf, 3}})
	requireSame(t, "values", []float32{
		1, 4, 1, 3, // NaN: no vote, lowest code
		1, 4, 4, 2, // infinities: no vote, the nearest end
		1, 4, 1, 3}, got[0])
}

// Numbers below float32's normal ones: XLA's CPU code counts them as 0, so they may vanish, but no
// further off than they are large.
func TestDenormals(t *testing.T) {
	x := [][]float32{{1e-40, -1e-40, 3e-41, 0}, {1e-40, 1, 0.5, 0}, {1e-30, -1e-30, 5e-31, 0}}
	got := evaluate(t, func(xs []*Node) []*Node {
		codes, scale, zero := quantizeMinMax(xs[0], 1, 4, nil)
		return []*Node{dequantize(codes, scale, zero), scale}
	}, x)
	for i, v := range got[0] {
		e, step := math.Abs(float64(v-x[i/4][i%4])), float64(got[1][i/4])
		if e > step/2*(1+1e-6)+0x1p-125 {
			t.Errorf("%v came back as %v with a step of %v", x[i/4][i%4], v, step)
		}
	}
}

// An element that is not valid changes nothing for the others and gets code 0; the group is
// quantized as if it were not there.
func TestInvalidElementsHaveNoVote(t *testing.T) {
	clean := groupsForTest(8)
	dirty, valid := make([][]float32, len(clean)), make([][]bool, len(clean))
	for i, group := range clean {
		odd := []float32{1e6, -1e6, nan, inf, 0}[i%5]
		dirty[i] = append([]float32{odd, odd}, group...)
		valid[i] = append([]bool{false, false}, slices.Repeat([]bool{true}, len(group))...)
	}
	quantizers := func(x, valid *Node) (out []*Node) {
		codes, scale, zero := quantizeMinMax(x, 1, 4, valid)
		out = append(out, codes, scale, zero)
		codes, scale, zero = quantizeStored(x, 1, 3, valid, numbers.Scale8, numbers.LeastSquares)
		out = append(out, codes, scale, zero)
		codes, scale, zero = quantizeHQQ(x, 1, 4, valid, numbers.ScaleFloat32)
		out = append(out, codes, scale, zero)
		codes, scale = quantizeSymmetric(x, 1, 4, valid, numbers.ScaleFloat16)
		out = append(out, codes, scale, scale)
		codes, scale = quantizeFloat8(x, 1, valid, numbers.ScaleFloat16)
		out = append(out, codes, scale, scale)
		codes, scale = quantizeInt8(x, 1, valid, numbers.ScaleFloat16)
		return append(out, codes, scale, scale)
	}
	got := evaluate(t, func(xs []*Node) []*Node { return append(quantizers(xs[0], nil), quantizers(xs[1], xs[2])...) }, clean, dirty, valid)
	n := len(got) / 2
	for k, name := range []string{"min-max", "search", "hqq", "symmetric", "float8", "int8"} {
		var codes []float32
		for row := range slices.Chunk(got[n+3*k], 10) {
			middle := map[string]float32{"symmetric": 8}[name]
			if row[0] != middle || row[1] != middle {
				t.Errorf("%s: invalid elements have codes %v and %v, wanted %v", name, row[0], row[1], middle)
			}
			codes = append(codes, row[2:]...)
		}
		if name == "hqq" {
			// Sums of eight and of ten numbers, two of them 0, are not added up in the same order.
			for i := range codes {
				if math.Abs(float64(codes[i]-got[3*k][i])) > 1 {
					t.Errorf("hqq: code %v, without the invalid elements %v", codes[i], got[3*k][i])
				}
			}
			continue
		}
		requireSame(t, name+" codes", got[3*k], codes)
		requireSame(t, name+" scales", got[3*k+1], got[n+3*k+1])
		requireSame(t, name+" zeros", got[3*k+2], got[n+3*k+2])
	}
}

func TestGroupWithoutAVote(t *testing.T) {
	got := evaluate(t, func(xs []*Node) []*Node {
		none := gx.Zeros(xs[0].Graph(), shapes.Make(dtypes.Bool, 1, 4))
		codes, scale, zero := quantizeMinMax(xs[0], 1, 4, none)
		return []*Node{codes, scale, zero, dequantize(codes, scale, zero)}
	}, [][]float32{{1, 2, 3, 4}})
	for i, want := range [][]float32{{0, 0, 0, 0}, {0}, {0}, {0, 0, 0, 0}} {
		requireSame(t, []string{"codes", "scale", "zero", "values"}[i], want, got[i])
	}
}

func TestConstantGroupsAreExact(t *testing.T) {
	x := [][]float32{{0, 0, 0}, {0.1, 0.1, 0.1}, {-1e10, -1e10, -1e10}, {65504, 65504, 65504}}
	got := evaluate(t, func(xs []*Node) []*Node {
		codes, scale, zero := quantizeMinMax(xs[0], 1, 4, nil)
		stored, scale16, zero16 := quantizeStored(xs[0], 1, 4, nil, numbers.ScaleBFloat16, numbers.MinMax)
		return []*Node{dequantize(codes, scale, zero), codes, dequantizeStored(stored, scale16, zero16, 4, numbers.ScaleBFloat16)}
	}, x)
	requireSame(t, "values", slices.Concat(x...), got[0])
	requireSame(t, "codes", make([]float32, 12), got[1])
	// A zero point rounded down leaves a range of one unit of bfloat16, divided by 15.
	for i, v := range got[2] {
		if e := math.Abs(float64(v - x[i/3][i%3])); e > math.Abs(float64(v))*0x1p-10 {
			t.Errorf("bfloat16 scales: %v came back as %v", x[i/3][i%3], v)
		}
	}
}

// symmetricBits are the widths that symmetric codes may have.
var symmetricBits = slices.DeleteFunc(slices.Clone(allBits), func(bits int) bool {
	return numbers.Symmetric.Check(numbers.Spec{Quantizer: numbers.Symmetric, Bits: bits}) != nil
})

func TestSymmetricOracle(t *testing.T) {
	x := groupsForTest(16)
	got := evaluate(t, func(xs []*Node) (out []*Node) {
		for _, bits := range symmetricBits {
			codes, scale := quantizeSymmetric(xs[0], 1, bits, nil, numbers.ScaleFloat32)
			out = append(out, codes, scale)
		}
		return out
	}, x)
	for b, bits := range symmetricBits {
		for i, group := range x {
			var wide []float64
			for _, v := range group {
				wide = append(wide, float64(v))
			}
			codes, scale := oracle.Symmetric(wide, bits)
			if d := math.Abs(float64(got[2*b+1][i])-scale) / scale; d > 1e-7 {
				t.Errorf("%d bits, group %d: scale %v, wanted %v", bits, i, got[2*b+1][i], scale)
			}
			for j, code := range codes {
				position := math.Abs(wide[j]) / scale
				if got[2*b][i*16+j] != float32(code) && math.Abs(position-math.Floor(position)-0.5) > 1e-5 {
					t.Errorf("%d bits: code of %v is %v, wanted %d", bits, group[j], got[2*b][i*16+j], code)
				}
			}
		}
	}
}

// The search never does worse than minimum and maximum, and gains at 2 bits on normal values.
func TestSearchLowersTheError(t *testing.T) {
	const g = 64
	x := groupsForTest(g)
	got := evaluate(t, func(xs []*Node) (out []*Node) {
		for _, bits := range allBits {
			for _, fit := range []*numbers.Quantizer{numbers.MinMax, numbers.LeastSquares} {
				codes, scale, zero := quantizeStored(xs[0], 1, bits, nil, numbers.ScaleFloat32, fit)
				e := Sub(dequantizeStored(codes, scale, zero, bits, numbers.ScaleFloat32), xs[0])
				out = append(out, gx.ReduceSum(Square(e), 1))
			}
		}
		return out
	}, x)
	for b, bits := range allBits {
		gain := 0.0
		for i, plain := range got[2*b] {
			found := got[2*b+1][i]
			// 1e-5 of the error, and what rounding alone makes of a constant group.
			if float64(found) > float64(plain)*(1+1e-5)+g*math.Pow(largestOf(x[i])*1e-6, 2) {
				t.Errorf("%d bits, group %d: squared error %v after the search, %v before", bits, i, found, plain)
			}
			if plain > 0 {
				gain += 1 - float64(found/plain)
			}
		}
		t.Logf("%d bits: mean gain %.3f", bits, gain/float64(len(x)))
		if bits == 2 && gain/float64(len(x)) < 0.2 {
			t.Errorf("2 bits: the search lowers the squared error by %v on average, wanted a fifth at least", gain/float64(len(x)))
		}
	}
}

// Weights say which elements matter: with all weight on half of them, the range is chosen for that
// half.
func TestSearchFollowsWeights(t *testing.T) {
	got := evaluate(t, func(xs []*Node) []*Node {
		codes, scale, zero := numbers.QuantizeWeighted(xs[0], 1, 2, xs[1])
		return []*Node{Abs(Sub(dequantizeStored(codes, scale, zero, 2, numbers.ScaleFloat32), xs[0]))}
	}, [][]float32{{-1, 1, -1, 1, 1.9, -1.9}, {-1, 1, -1, 1, 1.9, -1.9}}, [][]float32{{1, 1, 1, 1, 0, 0}, {0, 0, 0, 0, 1, 1}})
	// Candidates shrink the range 3.8 in steps of 0.6/23. With the weight on ±1 the end levels can
	// come within half a step of them.
	if e := slices.Max(got[0][:4]); e > 0.05 {
		t.Errorf("weight on ±1: they are off by up to %v", e)
	}
	if e := slices.Max(got[0][10:]); e > 1e-6 {
		t.Errorf("weight on ±1.9: they are off by up to %v", e)
	}
}

// Per token and head: float8 is right to 1/16 of each value, int8 to half a 127th of the largest.
func TestPerHeadFormats(t *testing.T) {
	x := groupsForTest(64)
	got := evaluate(t, func(xs []*Node) []*Node {
		f8, scale8 := quantizeFloat8(xs[0], 1, nil, numbers.ScaleFloat32)
		i8, scaleInt := quantizeInt8(xs[0], 1, nil, numbers.ScaleFloat32)
		return []*Node{dequantizeFloat8(f8, scale8, numbers.ScaleFloat32), dequantizeInt8(i8, scaleInt, numbers.ScaleFloat32), i8}
	}, x)
	for i, group := range x {
		largest := largestOf(group)
		for j, v := range group {
			at, w := i*64+j, math.Abs(float64(v))
			if e := math.Abs(float64(got[0][at] - v)); e > max(w/16, largest*0x1p-19)*(1+1e-5) {
				t.Errorf("float8: %v came back as %v", v, got[0][at])
			}
			if e := math.Abs(float64(got[1][at] - v)); e > largest/254*(1+1e-5) {
				t.Errorf("int8: %v came back as %v, largest of the group %v", v, got[1][at], largest)
			}
			if c := got[2][at]; c != float32(math.Trunc(float64(c))) || c < -127 || c > 127 {
				t.Errorf("int8: code %v", c)
			}
		}
	}
}

// e4m3 by hand, with a scale of 1: 448 = 1.75·2^8 is 0 1111 110, 1 is 0 0111 000, 1.0625 is a tie
// between 1 and 1.125 and goes to 1, 0.3 is 1.25·2^-2 = 0.3125 (0 0101 010, nearer than 0.28125),
// -17 is a tie between 16 and 18 and goes to 16 (1 1011 000), 2^-9 is the smallest number, 0 0000
// 001, and 2^-10 a tie that goes to 0.
func TestFloat8ByHand(t *testing.T) {
	x := [][]float32{{448, 1, 1.0625, 0.3, -17, 0x1p-9, 0x1p-10, -0x1.8p-7, nan}}
	got := evaluate(t, func(xs []*Node) []*Node {
		codes, scale := quantizeFloat8(xs[0], 1, nil, numbers.ScaleFloat32)
		return []*Node{codes, scale, dequantizeFloat8(codes, scale, numbers.ScaleFloat32)}
	}, x)
	requireSame(t, "codes", []float32{0b0_1111_110, 0b0_0111_000, 0b0_0111_000, 0b0_0101_010, 0b1_1011_000, 1, 0, 0b1_0000_110, 0}, got[0])
	requireSame(t, "scale", []float32{1}, got[1])
	requireSame(t, "values", []float32{448, 1, 1, 0.3125, -16, 0x1p-9, 0, -0x1.8p-7, 0}, got[2])
}

// All 254 numbers of e4m3 survive: decoded from their bits as the format defines them, coded and
// decoded again.
func TestFloat8HoldsAllItsNumbers(t *testing.T) {
	var x []float32
	for code := range 0x7f {
		e, m := code>>3, float64(code&7)
		v := math.Ldexp(1+m/8, e-7)
		if e == 0 {
			v = math.Ldexp(m/8, -6)
		}
		x = append(x, float32(v), float32(-v))
	}
	got := evaluate(t, func(xs []*Node) []*Node {
		codes, scale := quantizeFloat8(xs[0], 1, nil, numbers.ScaleFloat32)
		return []*Node{dequantizeFloat8(codes, scale, numbers.ScaleFloat32)}
	}, [][]float32{x})
	requireSame(t, "values", x, got[0])
}

// hqq in float32 against the oracle in float64, with hqq's own stop rule over all groups, and row
// by row.
func TestHQQOracle(t *testing.T) {
	x := groupsForTest(32)[:7] // comparable sizes: the stop rule is a mean over all
	wide := make([][]float64, len(x))
	for i, group := range x {
		for _, v := range group {
			wide[i] = append(wide[i], float64(v))
		}
	}
	for _, bits := range []int{2, 4} {
		got := evaluate(t, func(xs []*Node) []*Node {
			codes, factor, z := numbers.SolveHQQ(xs[0], 1, bits, nil, nil)
			rowCodes, _, rowZ := numbers.SolveHQQ(xs[0], 1, bits, nil, []int{1})
			return []*Node{codes, factor, z, rowCodes, rowZ}
		}, x)
		check := func(name string, codes, z []float32, groups [][]float64, first int) {
			wantCodes, _, wantZ, gap := oracle.HQQ(groups, bits)
			// Where two iterations have the same mean error, its rounding to float32, which differs
			// from processor to processor, decides which of them is the last: their zero points are
			// not far apart.
			near := 1e-4
			if gap < 1e-5 {
				near = 1e-2
			}
			for i := range groups {
				if d := math.Abs(float64(z[first+i]) - wantZ[i]); d > near*max(1, math.Abs(wantZ[i])) {
					t.Errorf("%s, %d bits, group %d: zero point %v, wanted %v", name, bits, first+i, z[first+i], wantZ[i])
				}
				for j, c := range wantCodes[i] {
					if math.Abs(float64(codes[(first+i)*32+j])-float64(c)) > 1 {
						t.Errorf("%s, %d bits, group %d: code %v, wanted %v", name, bits, first+i, codes[(first+i)*32+j], c)
					}
				}
			}
		}
		check("all", got[0], got[2], wide, 0)
		for i := range wide {
			check("by row", got[3], got[4], wide[i:i+1], i)
		}
	}
}

// Inside a While all quantizers give what they give outside.
func TestQuantizersInALoop(t *testing.T) {
	x := groupsForTest(16)
	all := func(x *Node) (out []*Node) {
		codes, scale, zero := quantizeMinMax(x, 1, 4, nil)
		out = append(out, dequantize(codes, scale, zero), codes)
		codes, scale, zero = quantizeStored(x, 1, 3, nil, numbers.Scale8, numbers.LeastSquares)
		out = append(out, dequantizeStored(codes, scale, zero, 3, numbers.Scale8))
		codes, scale, zero = quantizeHQQ(x, 1, 4, nil, numbers.ScaleFloat16)
		out = append(out, dequantizeStored(codes, scale, zero, 4, numbers.ScaleFloat16))
		codes, scale = quantizeFloat8(x, 1, nil, numbers.ScaleFloat16)
		out = append(out, dequantizeFloat8(codes, scale, numbers.ScaleFloat16), numbers.Rotate(x))
		for i := range out {
			out[i] = ConvertDType(out[i], dtypes.Float32)
		}
		return out
	}
	got := evaluate(t, func(xs []*Node) []*Node {
		g, outside := xs[0].Graph(), all(xs[0])
		state := append([]*Node{gx.Scalar(g, dtypes.Int32, 0), xs[0]}, outside...)
		state = gx.Loop(state,
			func(st []*Node) *Node { return gx.LessThanScalar(st[0], 2) },
			func(st []*Node) []*Node {
				return append([]*Node{gx.AddScalar(st[0], 1), st[1]}, all(st[1])...)
			})
		return append(outside, state[2:]...)
	}, x)
	n := len(got) / 2
	for i := range n {
		requireSame(t, fmt.Sprintf("result %d", i), got[i], got[n+i])
	}
}
