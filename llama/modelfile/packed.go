package modelfile

import (
	"context"

	"github.com/kvqbook/kvqbook/internal/usererr"
)

// Packable returns nil where the weights can stay as a GGUF file packs them: each tensor has the
// element type that the table of weights names (Q4_1 in all matrices of the layers, Q8_0 in the
// embeddings), and the embeddings are the output head too. Otherwise an error of one line names the
// first tensor that is another.
func (f *Files) Packable() error {
	if !f.config.TieEmbeddings {
		return usererr.New("%s: packed weights need an output head that is tied to the embeddings", f.path)
	}
	for _, t := range f.config.Tensors() {
		for _, w := range t.Parts {
			if s := f.stored(w); t.Packs != "" && s.format != t.Packs {
				return usererr.New("%s: tensor %q is %s, packed weights need %s", s.file, s.name, s.format, t.Packs)
			}
		}
	}
	return nil
}

// PackedRows reads rows from..to-1 of a weight as the file has them, in blocks of its element type
// (see Order), into the memory of buffer where that is large enough.
func (f *Files) PackedRows(ctx context.Context, w Weight, from, to int, buffer []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s := f.stored(w)
	r, err := openSection(s)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	row := s.size / int64(w.Dims[0])
	size := row * int64(to-from)
	raw := buffer[:0]
	if int64(cap(raw)) < size {
		raw = make([]byte, size)
	}
	raw = raw[:size]
	if err := readFull(r, raw, row*int64(from)); err != nil {
		return nil, f.About(w, err)
	}
	return raw, nil
}
