package modelfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"runtime"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"

	"github.com/kvqbook/kvqbook/internal/usererr"
)

// A header that counts more than its file holds is refused before memory for that is taken.
func TestGGUFCounts(t *testing.T) {
	start := func(tensors, values uint64) []byte {
		b := binary.LittleEndian.AppendUint32([]byte("GGUF"), 3)
		return binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(b, tensors), values)
	}
	array := func(b []byte, of uint32, count uint64) []byte {
		b = append(binary.LittleEndian.AppendUint64(b, 1), 'k')
		b = binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(b, ggufArray), of)
		return binary.LittleEndian.AppendUint64(b, count)
	}
	padded := func(b []byte) []byte { return append(b, make([]byte, 30_000)...) }
	for name, data := range map[string][]byte{
		"texts":            padded(array(start(0, 1), ggufString, 1<<24)),
		"texts, second":    padded(array(append(array(start(0, 2), 0, 3), 1, 2, 3), ggufString, 1<<24)),
		"numbers":          padded(array(start(0, 1), 10, 1<<24)),
		"bytes":            padded(array(start(0, 1), 0, 1<<24)),
		"a few too many":   padded(array(start(0, 1), 10, 30_000/8+1)),
		"values":           padded(start(0, 1<<16)),
		"tensors":          padded(start(1<<20, 0)),
		"more than 63 bit": padded(array(start(0, 1), 12, 1<<63+1)),
		"a text's length":  padded(binary.LittleEndian.AppendUint64(start(0, 1), 1<<63)),
	} {
		t.Run(name, func(t *testing.T) {
			path := writeFile(t, data, t.TempDir(), "hostile.gguf")
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := Open(path)
			runtime.ReadMemStats(&after)
			if err == nil || !errors.Is(err, usererr.ErrInput) || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), "hostile.gguf") {
				t.Errorf("error %v, want one line of ErrInput", err)
			}
			if taken := after.TotalAlloc - before.TotalAlloc; taken > 2<<20 {
				t.Errorf("%d bytes allocated for a file of %d", taken, len(data))
			}
		})
	}
	good := ggufBytes(t, fakeMetadata(), fakeTensors(t, fakeConfig(), dtypes.Float16, true))
	for n := 0; n <= len(good); n += 1 + n/50 {
		path := writeFile(t, good[:n], t.TempDir(), "cut.gguf")
		if err := checkGGUFCounts(path, int64(n)); err != nil && !errors.Is(err, usererr.ErrInput) {
			t.Errorf("cut at %d: %v", n, err)
		}
	}
	path := writeFile(t, good, t.TempDir(), "good.gguf")
	if err := checkGGUFCounts(path, int64(len(good))); err != nil {
		t.Errorf("a good file: %v", err)
	}
}

// Tensors of a GGUF file do not share bytes either.
func TestGGUFOverlap(t *testing.T) {
	good := ggufBytes(t, fakeMetadata(), fakeTensors(t, fakeConfig(), dtypes.Float16, true))
	offsetOf := func(name string) []byte {
		at := bytes.Index(good, []byte(name)) + len(name)
		dims := int(binary.LittleEndian.Uint32(good[at:]))
		return good[at+4+8*dims+4:][:8]
	}
	if _, err := Open(writeFile(t, good, t.TempDir(), "good.gguf")); err != nil {
		t.Fatalf("the file was to be good before the change: %v", err)
	}
	copy(offsetOf("blk.0.attn_v.weight"), offsetOf("blk.0.attn_k.weight"))
	_, err := Open(writeFile(t, good, t.TempDir(), "overlap.gguf"))
	wantLine(t, err, "overlap.gguf", `"blk.0.attn_k.weight" and "blk.0.attn_v.weight" share bytes`)
}
