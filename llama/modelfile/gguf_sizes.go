package modelfile

import (
	"bufio"
	"encoding/binary"
	"io"
	"os"

	"github.com/kvqbook/kvqbook/internal/usererr"
)

// Sizes of a GGUF file's values by their type; 0 for those that say their own.
var ggufValueSizes = map[uint32]int64{0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 8: 0, 9: 0, 10: 8, 11: 8, 12: 8}

const (
	ggufString = 8
	ggufArray  = 9

	// The least that an entry of the header takes in the file: a value's key, type and byte; a
	// tensor's name, number of dimensions, type and offset.
	leastValue  = 8 + 4 + 1
	leastTensor = 8 + 4 + 4 + 8
)

// checkGGUFCounts refuses a GGUF file of which the header counts more things than its size bytes
// have room for. go-huggingface takes memory by these counts before it reads: without this, 30 KB
// take 128 MB. What is wrong in other ways is left for it to say.
func checkGGUFCounts(path string, size int64) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	w := &ggufWalk{r: bufio.NewReaderSize(file, 1<<16), left: size}
	w.header()
	if w.refusal != nil {
		return usererr.New("%s: not a complete GGUF file: %w", path, w.refusal)
	}
	return nil
}

// ggufWalk goes over the header without keeping anything of it. It ends where the file ends, or at
// what it does not know.
type ggufWalk struct {
	r       *bufio.Reader
	left    int64 // bytes of the file behind this place
	ended   bool
	refusal error
}

func (w *ggufWalk) header() {
	if w.skip(8); w.ended { // magic and version
		return
	}
	tensors, values := w.number(8), w.number(8)
	w.room("values", values, leastValue)
	w.room("tensors", tensors, leastTensor)
	for ; values > 0 && !w.ended; values-- {
		w.skipString()
		w.value(uint32(w.number(4)))
	}
}

// room refuses a count of things that take so many bytes each at least.
func (w *ggufWalk) room(what string, count uint64, least int64) {
	if !w.ended && count > uint64(w.left/least) {
		w.ended, w.refusal = true, usererr.New("%d %s, for which there are %d bytes", count, what, w.left)
	}
}

func (w *ggufWalk) value(kind uint32) {
	switch size, known := ggufValueSizes[kind]; {
	case !known:
		w.ended = true
	case kind == ggufString:
		w.skipString()
	case kind == ggufArray:
		of, count := uint32(w.number(4)), w.number(8)
		each, known := ggufValueSizes[of]
		switch {
		case !known || of == ggufArray:
			w.ended = true
		case of == ggufString:
			w.room("texts", count, 8)
			for ; count > 0 && !w.ended; count-- {
				w.skipString()
			}
		default:
			if w.room("numbers", count, each); !w.ended {
				w.skip(int64(count) * each)
			}
		}
	default:
		w.skip(size)
	}
}

func (w *ggufWalk) skipString() {
	n := w.number(8)
	if w.room("bytes of a text", n, 1); !w.ended {
		w.skip(int64(n))
	}
}

// number reads one of so many bytes; 0 at the end.
func (w *ggufWalk) number(bytes int) uint64 {
	var b [8]byte
	if w.ended {
		return 0
	}
	if _, err := io.ReadFull(w.r, b[:bytes]); err != nil {
		w.ended = true
		return 0
	}
	w.left -= int64(bytes)
	return binary.LittleEndian.Uint64(b[:])
}

func (w *ggufWalk) skip(bytes int64) {
	for bytes > 0 && !w.ended {
		n, err := w.r.Discard(int(min(bytes, 1<<20)))
		w.left, bytes = w.left-int64(n), bytes-int64(n)
		w.ended = err != nil
	}
}
