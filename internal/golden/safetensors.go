package golden

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/gomlx/compute/dtypes/bfloat16"
	"github.com/gomlx/compute/dtypes/float16"
)

// Safetensors reads all arrays of a .safetensors file; path elements are joined.
//
// go-huggingface reads such files as part of a hub repository and into tensors; the goldens are
// loose files, wanted as plain Go. Format: 8 bytes little-endian length, JSON header of that
// length, then the data that the header's offsets point into.
func Safetensors(t testing.TB, path ...string) map[string]Array {
	t.Helper()
	file := filepath.Join(path...)
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	out, err := parseSafetensors(data)
	if err != nil {
		t.Fatalf("reading %s: %v", file, err)
	}
	return out
}

func parseSafetensors(data []byte) (map[string]Array, error) {
	if len(data) < 8 || binary.LittleEndian.Uint64(data) > uint64(len(data)-8) {
		return nil, fmt.Errorf("cut off: %d bytes do not hold the header", len(data))
	}
	split := 8 + int(binary.LittleEndian.Uint64(data))
	var header map[string]json.RawMessage
	if err := json.Unmarshal(data[8:split], &header); err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	out := make(map[string]Array, len(header))
	for name, raw := range header {
		if name == "__metadata__" {
			continue
		}
		var entry struct {
			DType   string `json:"dtype"`
			Shape   []int  `json:"shape"`
			Offsets [2]int `json:"data_offsets"`
		}
		if err := json.Unmarshal(raw, &entry); err != nil {
			return nil, fmt.Errorf("header of %q: %w", name, err)
		}
		from, to := split+entry.Offsets[0], split+entry.Offsets[1]
		if entry.Offsets[0] < 0 || from > to || to > len(data) {
			return nil, fmt.Errorf("%q: bytes %v of a file with %d", name, entry.Offsets, len(data)-split)
		}
		a, err := decode(entry.DType, data[from:to])
		if err != nil {
			return nil, fmt.Errorf("%q: %w", name, err)
		}
		a.Shape = entry.Shape
		out[name] = a
	}
	return out, nil
}

func decode(dtype string, b []byte) (Array, error) {
	switch dtype {
	case "F32":
		return floats(words(b, 4, binary.LittleEndian.Uint32), math.Float32frombits), nil
	case "F16":
		return floats(words(b, 2, binary.LittleEndian.Uint16), func(w uint16) float32 { return float16.FromBits(w).Float32() }), nil
	case "BF16":
		return floats(words(b, 2, binary.LittleEndian.Uint16), func(w uint16) float32 { return bfloat16.FromBits(w).Float32() }), nil
	case "U8":
		return ints(b), nil
	case "I64":
		return ints(convert(words(b, 8, binary.LittleEndian.Uint64), func(w uint64) int64 { return int64(w) })), nil
	}
	return Array{}, fmt.Errorf("dtype %s is not read yet", dtype)
}

func words[T any](b []byte, size int, read func([]byte) T) []T {
	out := make([]T, len(b)/size)
	for i := range out {
		out[i] = read(b[i*size:])
	}
	return out
}
