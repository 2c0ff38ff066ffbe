package numbers_test

import (
	"encoding/binary"
	"fmt"
	"math"
	"testing"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/kvqbook/kvqbook/internal/testbackend"
	"github.com/kvqbook/kvqbook/internal/testlane"
	"github.com/kvqbook/kvqbook/kvq/internal/numbers"
)

// fuzzGroups and fuzzGroup are the shape of what FuzzQuantizers codes.
const fuzzGroups, fuzzGroup = 4, 8

// FuzzQuantizers codes groups of any numbers with every quantizer, in the widths 2, 4 and 8,
// each with another format of scales: codes are within their width, and what comes back is finite.
func FuzzQuantizers(f *testing.F) {
	testlane.Slow(f, "compiles a graph of every quantizer")
	var specs []numbers.Spec
	for _, q := range numbers.Quantizers {
		for bits, format := range map[int]numbers.ScaleFormat{2: numbers.ScaleFloat16, 4: numbers.ScaleFloat32, 8: numbers.Scale8} {
			if s := (numbers.Spec{Quantizer: q, Bits: bits, Scales: format}); q.Check == nil || q.Check(s) == nil {
				specs = append(specs, s)
			}
		}
	}
	exec := MustNewExec(testbackend.XLA(f), func(xs []*Node) (out []*Node) {
		for _, s := range specs {
			codes, scales, zeros := s.Encode(xs[0], 1, nil)
			largest := ConvertDType(codes, dtypes.Float32)
			out = append(out, decoded(s, codes, scales, zeros), largest)
		}
		return out
	})
	add := func(values ...float32) {
		var data []byte
		for _, v := range values {
			data = binary.LittleEndian.AppendUint32(data, math.Float32bits(v))
		}
		f.Add(data)
	}
	add(0, 1, 2, 3, -4, 5, -6, 7)
	add(nan, inf, -inf, maxFloat, -maxFloat, 1e-40, -1e-40, 0)
	add(maxFloat, 1.7146999e38, maxFloat, maxFloat, maxFloat, maxFloat, maxFloat, maxFloat)
	add(60000, -60000, 65504, 65520, 1, 1, 1, 1)
	f.Fuzz(func(t *testing.T, data []byte) {
		x := make([]float32, fuzzGroups*fuzzGroup)
		for i := range x {
			if len(data) >= 4 {
				x[i] = math.Float32frombits(binary.LittleEndian.Uint32(data[i*4%(len(data)-3):]))
			}
		}
		results, err := exec.Exec(tensors.FromFlatDataAndDimensions(x, fuzzGroups, fuzzGroup))
		if err != nil {
			t.Fatal(err)
		}
		for n, s := range specs {
			name := fmt.Sprintf("%s, %d bits, %s", s.Quantizer.Name, s.Bits, s.Scales)
			values, codes := tensors.MustCopyFlatData[float32](results[2*n]), tensors.MustCopyFlatData[float32](results[2*n+1])
			for i, v := range values {
				if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
					t.Errorf("%s: %v in %v came back as %v", name, x[i], x[i/fuzzGroup*fuzzGroup:][:fuzzGroup], v)
				}
				if c := codes[i]; s.Quantizer.Packed() && (!(c >= 0) || c >= float32(int(1)<<s.Bits)) {
					t.Errorf("%s: code %v", name, c)
				}
			}
		}
	})
}
