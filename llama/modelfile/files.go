package modelfile

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gomlx/compute/dtypes"

	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// Files is a model on disk whose headers were read and checked: configuration, list of tensors. It
// holds no file open and no weights. Safe for concurrent use.
type Files struct {
	path   string
	config Config
	source source

	warnings []string
}

// source is a file format.
type source interface {
	// name is the weight's name in this format.
	name(w Weight) string
	// tensors lists what the files hold.
	tensors() map[string]stored
	// ignored says that a tensor beyond the weights does no harm.
	ignored(name string) bool
	// pairedRows says that rotary pairs are neighbours, rows 2i and 2i+1 of a head, instead of i
	// and i + D/2.
	pairedRows() bool
	// open gives the elements of a tensor as one little-endian stream of stored.dtype, from
	// position 0 on.
	open(s stored) (tensorReader, error)
	// tokenizer reads the tokenizer that came with the model.
	tokenizer() (*tokenizer.Tokenizer, error)
}

// stored is one tensor as the files hold it.
type stored struct {
	name   string
	file   string       // path of the file
	format string       // the element type's name in the file, for messages
	dtype  dtypes.DType // what open gives
	dims   []int
	offset int64 // of the first byte in the file
	size   int64 // bytes in the file
}

type tensorReader interface {
	io.ReaderAt
	io.Closer
}

// Open reads the headers of a model: a .gguf file, or a folder in Hugging Face's layout
// (config.json with model.safetensors or its shards). It checks the configuration, that every
// tensor is there with the shape that the configuration implies and a dtype that can be read, and
// that no file is cut off. Bad input is an error of one line that names file and tensor or field,
// what was wanted and what came; it is [ErrInput].
func Open(path string) (*Files, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, usererr.New("model %q: no such file or folder; want a .gguf file or a folder with config.json", path)
	case err != nil:
		return nil, usererr.New("model %q: %w", path, err)
	}
	f := &Files{path: path}
	switch {
	case info.IsDir():
		f.config, f.source, f.warnings, err = openFolder(path)
	case info.Mode().IsRegular() && strings.EqualFold(filepath.Ext(path), ".gguf"):
		f.config, f.source, f.warnings, err = openGGUF(path, info.Size())
	default:
		return nil, usererr.New("model %q: want a .gguf file or a folder with config.json", path)
	}
	if err != nil {
		return nil, err
	}
	if err := f.checkTensors(); err != nil {
		return nil, err
	}
	return f, nil
}

// Path is what Open was given.
func (f *Files) Path() string { return f.path }

// Config is the model's configuration.
func (f *Files) Config() Config {
	c := f.config
	c.EOS = slices.Clone(c.EOS)
	return c
}

// Warnings are lines about what in the files is wrong without harm, such as a padding token that
// the vocabulary does not have. It was ignored.
func (f *Files) Warnings() []string { return slices.Clone(f.warnings) }

// Tokenizer reads the model's tokenizer, and checks that its ids fit the model's vocabulary. Tokens
// that were added to it but not to the model, such as a [PAD] behind the last one, may go beyond: a
// prompt that holds one is refused.
func (f *Files) Tokenizer() (*tokenizer.Tokenizer, error) {
	t, err := f.source.tokenizer()
	if err != nil {
		return nil, err
	}
	if n := t.ModelVocabSize(); n > f.config.VocabSize {
		return nil, usererr.New("%s: the tokenizer has ids up to %d, the model's vocabulary ends at %d", f.path, n-1, f.config.VocabSize-1)
	}
	return t, nil
}

// StoredBytes is the size of the model's weights in its files.
func (f *Files) StoredBytes() int64 {
	all := f.source.tensors()
	var sum int64
	for _, w := range f.config.Weights() {
		sum += all[f.source.name(w)].size
	}
	return sum
}

// checkTensors compares the tensors of the files with those that the configuration implies.
func (f *Files) checkTensors() error {
	all := f.source.tensors()
	expected := make(map[string]bool, len(all))
	for _, w := range f.config.Weights() {
		name := f.source.name(w)
		expected[name] = true
		s, found := all[name]
		if !found {
			return usererr.New("%s: tensor %q is missing, want shape %v", f.path, name, w.Dims)
		}
		if !slices.Equal(s.dims, w.Dims) {
			return usererr.New("%s: tensor %q has shape %v, want %v", s.file, name, s.dims, w.Dims)
		}
		switch s.dtype {
		case dtypes.Float32, dtypes.Float16, dtypes.BFloat16:
		default:
			return usererr.New("%s: tensor %q has dtype %s, want float32, float16 or bfloat16", s.file, name, s.format)
		}
	}
	var extra []string
	for name, s := range all {
		if !expected[name] && !f.source.ignored(name) && s.size > 0 {
			extra = append(extra, name)
		}
	}
	if len(extra) > 0 {
		slices.Sort(extra) // the message does not depend on the order of a map
		return usererr.New("%s: tensor %q does not belong to this architecture (%d such): results without it would be wrong",
			f.path, extra[0], len(extra))
	}
	return nil
}
