package tokenizer

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// ggufBytes encodes a GGUF file that holds metadata alone.
// Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
func ggufBytes(t testing.TB, metadata map[string]any) []byte {
	t.Helper()
	var b bytes.Buffer
	put := func(v any) {
		if err := binary.Write(&b, binary.LittleEndian, v); err != nil {
			t.Fatal(err)
		}
	}
	text := func(s string) { put(uint64(len(s))); b.WriteString(s) }
	array := func(kind uint32, n int) { put(uint32(9)); put(kind); put(uint64(n)) }
	b.WriteString("GGUF")
	put(uint32(3))
	put(uint64(0))
	put(uint64(len(metadata)))
	for _, key := range sortedKeys(metadata) {
		text(key)
		switch v := metadata[key].(type) {
		case uint32:
			put(uint32(4))
			put(v)
		case bool:
			put(uint32(7))
			put(v)
		case string:
			put(uint32(8))
			text(v)
		case []int32:
			array(5, len(v))
			put(v)
		case []float32:
			array(6, len(v))
			put(v)
		case []string:
			array(8, len(v))
			for _, s := range v {
				text(s)
			}
		default:
			t.Fatalf("ggufBytes: %s has type %T", key, v)
		}
	}
	return b.Bytes()
}
