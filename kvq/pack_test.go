package kvq

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/oracle"
	"github.com/kvqbook/kvqbook/internal/testbackend"
)

var headDims = []int{8, 16, 64, 80, 96, 128, 256}

// Every width and head dimension: the bytes are the oracle's, there are dim·bits/8 of them a row, and unpacking gives the codes back.
func TestPackRoundTrip(t *testing.T) {
	backend := testbackend.XLA(t)
	random := rand.New(rand.NewPCG(1, 2))
	widths := []int{1, 2, 3, 4, 5, 6, 8}
	const rows = 5
	for _, dim := range headDims {
		t.Run(fmt.Sprintf("D=%d", dim), func(t *testing.T) {
			noise := make([]uint8, rows*dim)
			for i := range noise {
				noise[i] = uint8(random.IntN(256))
			}
			out := MustNewExec(backend, func(x *Node) (results []*Node) {
				for _, bits := range widths {
					packed := Pack(gx.AndScalar(x, 1<<bits-1), bits)
					results = append(results, packed, Unpack(packed, bits))
				}
				return results
			}).MustExec(tensors.FromFlatDataAndDimensions(noise, rows, dim))
			for i, bits := range widths {
				packed, back := tensors.MustCopyFlatData[uint8](out[2*i]), tensors.MustCopyFlatData[uint8](out[2*i+1])
				codes := make([]uint8, len(noise))
				var want []uint8
				for j := range noise {
					codes[j] = noise[j] & (1<<bits - 1)
				}
				for row := range slices.Chunk(codes, dim) {
					want = append(want, oracle.Pack(row, bits)...)
				}
				if len(packed) != rows*PackedSize(dim, bits) || len(packed) != rows*dim*bits/8 {
					t.Errorf("%d bits: %d codes take %d bytes, PackedSize says %d a row", bits, len(codes), len(packed), PackedSize(dim, bits))
				}
				if !slices.Equal(packed, want) {
					t.Errorf("%d bits: packed %x, by the oracle %x", bits, packed, want)
				}
				if !slices.Equal(back, codes) {
					t.Errorf("%d bits: %v came back as %v", bits, codes, back)
				}
			}
		})
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
		_, err := MustNewExec(backend, func(x *Node) *Node { return Pack(x, c.bits) }).Exec1(c.x)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, wanted one with %q", name, err, c.want)
		}
	}
}
