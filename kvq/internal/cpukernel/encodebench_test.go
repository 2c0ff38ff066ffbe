//go:build linux && cgo

package cpukernel

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"unsafe"

	"github.com/gomlx/compute/dtypes"

	"github.com/kvqbook/kvqbook/kvq/internal/codes"
	"github.com/kvqbook/kvqbook/kvq/internal/numbers"
)

// directCase is a call outside of graphs, on made-up numbers.
type directCase struct {
	call    directEncoding
	scratch unsafe.Pointer
	out     []unsafe.Pointer
	bytes   []int
}

func newDirectCase(t testing.TB, of encoding, x []float32, first []int32, valid []uint8, factor []float32) directCase {
	var c directCase
	m := encoded{x: place(t, x), first: place(t, first), valid: place(t, valid), factor: place(t, factor)}
	for _, a := range of.format.Arrays(of.rows, of.heads, of.tokens, dtypes.Float32) {
		n := int(a.Shape.Memory())
		at := unsafe.Pointer(unsafe.SliceData(guarded(t, n)))
		c.out, c.bytes = append(c.out, at), append(c.bytes, n)
		switch a.Kind {
		case codes.KindCodes:
			m.codes = at
		case codes.KindScales:
			m.scales = at
		case codes.KindZeros:
			m.zeros = at
		case codes.KindTokens:
			m.tokens = at
		}
	}
	c.call = newDirectEncoding(of, m)
	t.Cleanup(c.call.free)
	c.scratch = unsafe.Pointer(unsafe.SliceData(guarded(t, (c.call.scratch+63)/64*64)))
	return c
}

// BenchmarkEncode times keys and values of one layer, 960 tokens, on one thread.
func BenchmarkEncode(b *testing.B) {
	for _, shape := range []struct {
		name       string
		heads, dim int
	}{{"SmolLM2", 3, 64}, {"Llama-2-7B", 32, 128}} {
		rng := rand.New(rand.NewPCG(1, 2))
		normal := func(n int, size float64) []float32 {
			list := make([]float32, n)
			for i := range list {
				list[i] = float32(size * rng.NormFloat64())
			}
			return list
		}
		const tokens = 960
		x, factor := normal(shape.heads*tokens*shape.dim, 1), normal(shape.heads*shape.dim*shape.dim, 0.05)
		for _, c := range []struct {
			name        string
			bits, group int
			keys        bool
			scales      numbers.ScaleFormat
			tokenScales bool
		}{
			{"balanced keys", 5, 64, true, numbers.ScaleFloat16, false},
			{"balanced values", 4, 64, false, numbers.ScaleFloat16, false},
			{"smallest keys", 3, 64, true, numbers.Scale8, true},
			{"lowest keys", 2, 32, true, numbers.Scale8, true},
			{"lowest values", 2, 64, false, numbers.Scale8, false},
		} {
			f := codes.New(numbers.Spec{Quantizer: numbers.Unbiased, Bits: c.bits, Scales: c.scales, Keys: c.keys}, shape.dim, c.group, c.keys, true)
			f.TokenScales = c.tokenScales
			own := factor
			if !c.tokenScales {
				own = nil
			}
			of := encoding{format: f, rows: 1, heads: shape.heads, tokens: tokens, all: tokens, factor: own != nil}
			d := newDirectCase(b, of, x, []int32{0}, nil, own)
			b.Run(fmt.Sprintf("%s/%s", shape.name, c.name), func(b *testing.B) {
				for range b.N {
					for i := range d.call.pieces {
						d.call.piece(i, d.scratch)
					}
				}
			})
		}
	}
}
