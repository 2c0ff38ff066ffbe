package oracle

import (
	"encoding/binary"
	"math"
	"slices"
	"testing"

	"github.com/kvqbook/kvqbook/kvq"
)

// By hand, 2 bits: min -1, max 5, scale 6/3 = 2. (x+1)/2 = 0, 0.5, 1.5, 2.5, 3 -> halves to even 0,
// 0, 2, 2, 3 -> values -1, -1, 3, 3, 5.
func TestMinMaxByHand(t *testing.T) {
	codes, scale, zero := MinMax([]float32{-1, 0, 2, 4, 5}, 2, Exact)
	if scale != 2 || zero != -1 || !slices.Equal(codes, []uint8{0, 0, 2, 2, 3}) {
		t.Errorf("codes %v, scale %v, zero %v", codes, scale, zero)
	}
	if got := DequantizeMinMax(codes, scale, zero, Exact); !slices.Equal(got, []float32{-1, -1, 3, 3, 5}) {
		t.Errorf("values %v", got)
	}
}

func TestRounders(t *testing.T) {
	for _, c := range []struct {
		name  string
		round Rounder
		in    float64
		want  float64
	}{
		{"float16 tie to even, down", Float16, 1 + 0x1p-11, 1},
		{"float16 tie to even, up", Float16, 1 + 3*0x1p-11, 1 + 0x1p-9},
		{"float16 overflow", Float16, 65520, math.Inf(1)},
		{"float16 below overflow", Float16, 65519, 65504},
		{"float16 near 0", Float16, 0x1.8p-24, 0x1p-23},
		{"float16 to 0", Float16, 0x1p-25, 0},
		{"bfloat16 tie to even", BFloat16, 1 + 0x1p-8, 1},
		{"bfloat16 above a tie", BFloat16, 1 + 0x1p-8 + 0x1p-20, 1 + 0x1p-7},
		{"bfloat16 negative", BFloat16, -3.14159, -3.140625},
	} {
		if got := float64(c.round(float32(c.in))); got != c.want {
			t.Errorf("%s: %v -> %v, wanted %v", c.name, c.in, got, c.want)
		}
	}
}

// FuzzQuantize compares the float32 emulation with a second route through float64, and checks what
// a quantizer promises.
func FuzzQuantize(f *testing.F) {
	f.Add([]byte{0, 0, 128, 63, 0, 0, 0, 64, 0, 0, 64, 64}, uint8(4))
	f.Add([]byte{255, 255, 127, 127, 255, 255, 127, 255}, uint8(2))
	// 3.4028235e38 and 5.7e34: scale·15 is finite, scale·15 + zero is not
	f.Add([]byte("\xff\xff\x7f\x7f000y"), uint8(2))
	// 3.4e38 and 1.7e38: wholly above the limit of the range
	f.Add([]byte("\xff\xff\x7f\x7f\xeb\xff\x00\x7f"), uint8(0x1c))
	f.Add([]byte("\xff\xff\x7f\xff\xeb\xff\x00\xff"), uint8(0x1c)) // and below
	f.Add([]byte{0, 0, 192, 127, 0, 0, 128, 127, 1, 2, 3, 4}, uint8(8))
	f.Fuzz(func(t *testing.T, data []byte, choice uint8) {
		widths := kvq.Widths()
		bits := widths[int(choice)%len(widths)]
		x := make([]float32, len(data)/4)
		for i := range x {
			x[i] = math.Float32frombits(binary.LittleEndian.Uint32(data[4*i:]))
		}
		codes, scale, zero := MinMax(x, bits, Exact)
		values := DequantizeMinMax(codes, scale, zero, Exact)
		if scale < 0 || math.IsInf(float64(scale), 0) || math.IsNaN(float64(scale)+float64(zero)) {
			t.Fatalf("%v: scale %v, zero %v", x, scale, zero)
		}
		low, high := float64(zero), float64(zero)+float64(scale)*float64(int(1)<<bits-1)
		for i, v := range x {
			if got := float64(values[i]); math.IsNaN(got) || math.IsInf(got, 0) {
				t.Fatalf("%v is %v", v, got)
			}
			if int(codes[i]) >= 1<<bits {
				t.Fatalf("code %d of %d bits", codes[i], bits)
			}
			w := float64(v)
			if math.IsNaN(w) || w < low || w > high {
				continue // no vote, or cut off by the limit of the range
			}
			// Half a step, and what rounding differences, quotients and products to float32 can
			// add.
			slack := math.Max(math.Abs(low), math.Abs(high))*0x1p-21 + 0x1p-140
			if e := math.Abs(float64(values[i]) - w); e > float64(scale)/2+slack {
				t.Fatalf("%v came back as %v: error %v with scale %v", v, values[i], e, scale)
			}
			// The second route: the nearest of all levels in float64 is at most as far as that, and
			// as near as the code's own.
			if scale > 0 {
				nearest := math.RoundToEven((w - float64(zero)) / float64(scale))
				if d := math.Abs(nearest - float64(codes[i])); d > 1 || d == 1 && math.Abs(math.Abs((w-float64(zero))/float64(scale)-math.Floor((w-float64(zero))/float64(scale)))-0.5) > 1e-3 {
					t.Fatalf("%v: code %d, the nearest level is %v", v, codes[i], nearest)
				}
			}
		}
	})
}
