package kvq

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/kvqbook/kvqbook/internal/oracle"
	"github.com/kvqbook/kvqbook/internal/testbackend"
)

var headDims = []int{8, 16, 64, 80, 96, 128, 256}

func TestPackRoundTrip(t *testing.T) {
	backend := testbackend.XLA(t)
	random := rand.New(rand.NewPCG(1, 2))
	const rows = 5
	for _, bits := range []int{1, 2, 3, 4, 5, 6, 8} {
		for _, dim := range headDims {
			t.Run(fmt.Sprintf("bits=%d/D=%d", bits, dim), func(t *testing.T) {
				codes := make([]uint8, rows*dim)
				for i := range codes {
					codes[i] = uint8(random.IntN(1 << bits))
				}
				out := MustNewExec(backend, func(x *Node) (packed, back *Node) {
					packed = Pack(x, bits)
					return packed, Unpack(packed, bits)
				}).MustExec(tensors.FromFlatDataAndDimensions(codes, rows, dim))
				packed, back := tensors.MustCopyFlatData[uint8](out[0]), tensors.MustCopyFlatData[uint8](out[1])
				if len(packed) != rows*PackedSize(dim, bits) || len(packed) != rows*dim*bits/8 {
					t.Errorf("%d codes take %d bytes, PackedSize says %d a row", len(codes), len(packed), PackedSize(dim, bits))
				}
				var want []uint8
				for row := range slices.Chunk(codes, dim) {
					want = append(want, oracle.Pack(row, bits)...)
				}
				if !slices.Equal(packed, want) {
					t.Errorf("packed %x, by the oracle %x", packed, want)
				}
				if !slices.Equal(back, codes) {
					t.Errorf("%v came back as %v", codes, back)
				}
			})
		}
	}
}

func TestPackRefuses(t *testing.T) {
	backend := testbackend.Go(t)
	for name, c := range map[string]struct {
		bits int
		x    any
		want string
	}{
		"bits":  {7, []uint8{1, 2, 3, 4, 5, 6, 7, 8}, "codes of 7 bits, want 1, 2, 3, 4, 5, 6 or 8"},
		"dim":   {3, []uint8{1, 2, 3, 4}, "rows of 4 codes of 3 bits, want a positive multiple of 8"},
		"dtype": {4, []int32{1, 2}, "want uint8"},
	} {
		_, err := NewExec(backend, func(x *Node) *Node { return Pack(x, c.bits) })
		if err == nil {
			_, err = MustNewExec(backend, func(x *Node) *Node { return Pack(x, c.bits) }).Exec1(c.x)
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, wanted one with %q", name, err, c.want)
		}
	}
}
