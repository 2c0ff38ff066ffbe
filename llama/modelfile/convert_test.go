package modelfile

import (
	"encoding/binary"
	"math"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/dtypes/float16"
)

// Every float16 survives the way over float32; midpoints go to the even neighbour, what lies beside
// them to the nearer.
func TestToFloat16(t *testing.T) {
	for h := uint32(0); h < 0x7C00; h++ { // finite, not negative
		x := math.Float32frombits(halfToFloat[h])
		if got := toFloat16(x); got != uint16(h) {
			t.Fatalf("toFloat16(%g) = %#x, want %#x", x, got, h)
		}
		if h+1 == 0x7C00 {
			continue
		}
		next := math.Float32frombits(halfToFloat[h+1])
		middle := (x + next) / 2 // exact: float32 has 13 bits more
		even := h + h&1
		for value, want := range map[float32]uint32{
			middle: even, math.Nextafter32(middle, 0): h, math.Nextafter32(middle, next): h + 1,
		} {
			if got := toFloat16(value); got != uint16(want) {
				t.Fatalf("toFloat16(%g) = %#x, want %#x", value, got, want)
			}
			if got := toFloat16(-value); got != uint16(want)|0x8000 {
				t.Fatalf("toFloat16(%g) = %#x, want %#x", -value, got, want|0x8000)
			}
		}
	}
	for value, want := range map[float32]uint16{
		65519: 0x7BFF, 65520: 0x7C00, float32(math.Inf(1)): 0x7C00, float32(math.Inf(-1)): 0xFC00, 1e-9: 0,
	} {
		if got := toFloat16(value); got != want {
			t.Errorf("toFloat16(%g) = %#x, want %#x", value, got, want)
		}
	}
	if got := toFloat16(float32(math.NaN())); got&0x7C00 != 0x7C00 || got&0x3FF == 0 {
		t.Errorf("toFloat16(NaN) = %#x, want a NaN", got)
	}
}

// The reason for toFloat16. When this fails, compute was repaired and toFloat16 can go.
func TestUpstreamFloat16Fault(t *testing.T) {
	x := math.Nextafter32(0x1p-14, 0) // rounds to 2^-14
	if got := float16.FromFloat32(x); got.Float32() != 0 {
		t.Errorf("float16.FromFloat32(%g) = %g: the fault is gone", x, got.Float32())
	}
}

// All pairs of types agree with load and store, element by element, and report the first overflow.
func TestConvert(t *testing.T) {
	values := []float32{0, 1, -1.5, 1e-7, 3.14159, 65504, -0x1p-14, 1e-40, 7}
	all := []dtypes.DType{dtypes.Float32, dtypes.Float16, dtypes.BFloat16}
	for _, from := range all {
		src := make([]byte, len(values)*from.Size())
		for i, v := range values {
			store(from, src[i*from.Size():], v)
		}
		for _, to := range all {
			for _, round := range []bool{false, true} {
				dst := make([]byte, len(values)*to.Size())
				overflow := converter{from, to, round}.convert(dst, src)
				firstBad := -1
				for i := range values {
					x := load(from, src[i*from.Size():])
					want := make([]byte, 4)
					if round {
						binary.LittleEndian.PutUint16(want, toFloat16(x))
						x = load(dtypes.Float16, want)
					}
					if ok := store(to, want, x); (!ok || isInf(x)) && firstBad < 0 {
						firstBad = i
					}
					if got := load(to, dst[i*to.Size():]); got != load(to, want) {
						t.Errorf("%s to %s (round %v): %g became %g, want %g", from, to, round, values[i], got, load(to, want))
					}
				}
				if overflow != firstBad {
					t.Errorf("%s to %s (round %v): overflow at %d, want %d", from, to, round, overflow, firstBad)
				}
			}
		}
	}
}

func BenchmarkConvert(b *testing.B) {
	src := make([]byte, chunkBytes)
	for i := range src {
		src[i] = byte(i * 7)
	}
	dst := make([]byte, 2*chunkBytes)
	for _, c := range []converter{
		{from: dtypes.Float16, to: dtypes.Float32}, {from: dtypes.BFloat16, to: dtypes.Float32}, {from: dtypes.Float32, to: dtypes.BFloat16},
		{from: dtypes.Float32, to: dtypes.Float32, roundFloat16: true},
	} {
		b.Run(c.from.String()+" to "+c.to.String(), func(b *testing.B) {
			b.SetBytes(int64(len(src)))
			for b.Loop() {
				c.convert(dst, src)
			}
		})
	}
}
