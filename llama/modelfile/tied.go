package modelfile

import (
	"bytes"
	"strings"

	"github.com/gomlx/compute/dtypes"
)

// Names of the two tensors that may be one.
const (
	embeddingsTensor = "model.embed_tokens.weight"
	headTensor       = "lm_head.weight"
)

// addBaseName gives the tensors of a model that was saved without its head, such as an embedding
// model, the names that they have in a model with one. transformers does the same.
func addBaseName(all map[string]stored) map[string]stored {
	const base = "model."
	if _, found := all[strings.TrimPrefix(embeddingsTensor, base)]; !found {
		return all
	}
	for name := range all {
		if strings.HasPrefix(name, base) {
			return all
		}
	}
	named := make(map[string]stored, len(all))
	for name, s := range all {
		if !strings.HasPrefix(name, "lm_head.") {
			name = base + name
		}
		named[name] = s
	}
	return named
}

// tieHead decides whether the head is the embeddings, where the configuration says so, as version 5
// of transformers does: a head that is there alone is the embeddings too, and one that is there
// with other values remains another.
func (s *folderSource) tieHead(c *Config) (warnings []string, err error) {
	head, found := s.all[headTensor]
	if !c.TieEmbeddings || !found {
		return nil, nil
	}
	embeddings, found := s.all[embeddingsTensor]
	if !found {
		delete(s.all, headTensor)
		s.all[embeddingsTensor] = head
		return nil, nil
	}
	same, err := sameValues(head, embeddings)
	if err != nil || same {
		return nil, err
	}
	c.TieEmbeddings, s.tie = false, false
	return []string{"tie_word_embeddings = true is ignored: the file has an lm_head.weight that differs from the embeddings"}, nil
}

// sameValues compares two tensors of safetensors files up to the first difference.
func sameValues(a, b stored) (bool, error) {
	readable := func(t dtypes.DType) bool { return t == dtypes.Float32 || t == dtypes.Float16 || t == dtypes.BFloat16 }
	if !readable(a.dtype) || !readable(b.dtype) || a.size/int64(a.dtype.Size()) != b.size/int64(b.dtype.Size()) {
		return false, nil // who reads them says what is wrong
	}
	x, err := openFloats(a)
	if err != nil {
		return false, err
	}
	defer x.Close()
	y, err := openFloats(b)
	if err != nil {
		return false, err
	}
	defer y.Close()
	const step = chunkBytes / 4
	for first, count := int64(0), a.size/int64(a.dtype.Size()); first < count; first += step {
		n := min(step, count-first)
		left, err := x.read(first, n)
		if err != nil {
			return false, err
		}
		right, err := y.read(first, n)
		if err != nil {
			return false, err
		}
		if !bytes.Equal(left, right) {
			return false, nil
		}
	}
	return true, nil
}

// floats reads elements of a tensor as float32.
type floats struct {
	tensorReader
	convert   converter
	raw, made []byte
}

func openFloats(s stored) (*floats, error) {
	r, err := openSection(s)
	return &floats{tensorReader: r, convert: converter{from: s.dtype, to: dtypes.Float32}, raw: make([]byte, chunkBytes), made: make([]byte, chunkBytes)}, err
}

func (f *floats) read(first, n int64) ([]byte, error) {
	size := int64(f.convert.from.Size())
	raw, made := f.raw[:n*size], f.made[:4*n]
	if err := readFull(f.tensorReader, raw, first*size); err != nil {
		return nil, err
	}
	f.convert.convert(made, raw)
	return made, nil
}
