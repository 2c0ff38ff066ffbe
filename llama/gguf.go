package llama

import (
	"bytes"
	"math"
	"os"
	"slices"
	"strconv"

	"github.com/gomlx/go-huggingface/models/gguf"

	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// ggufSource is a model in one GGUF file.
// Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
type ggufSource struct {
	path string
	file *gguf.File
	all  map[string]stored
}

// openGGUF reads the header of a GGUF file of size bytes.
func openGGUF(path string, size int64) (Config, *ggufSource, error) {
	file, err := gguf.Open(path)
	if err != nil {
		return Config{}, nil, usererr.New("%s: not a complete GGUF file: %w", path, err)
	}
	config, err := ggufConfig(file)
	if err != nil {
		return Config{}, nil, usererr.New("%s: %w", path, err)
	}
	s := &ggufSource{path: path, file: file, all: make(map[string]stored, len(file.TensorInfos))}
	for _, info := range file.TensorInfos {
		t, err := ggufStored(file, info, size)
		if err != nil {
			return Config{}, nil, usererr.New("%s: tensor %q: %w", path, info.Name, err)
		}
		s.all[info.Name] = t
	}
	_, untied := s.all["output.weight"]
	config.TieEmbeddings = !untied
	if err := s.ropeFactors(&config); err != nil {
		return Config{}, nil, usererr.New("%s: %w", path, err)
	}
	if err := config.Validate(); err != nil {
		return Config{}, nil, usererr.New("%s: %w", path, err)
	}
	return config, s, nil
}

// ggufConfig reads the metadata. Its names are GGUF's; ranges are Validate's business.
func ggufConfig(file *gguf.File) (Config, error) {
	c := Config{RopeTheta: 10000, BOS: -1, Architecture: file.Architecture()}
	if c.Architecture != architectureLlama { // files of Mistral models say "llama" too
		return c, usererr.New("architecture %q, want %q", c.Architecture, architectureLlama)
	}
	m := ggufMetadata{file: file}
	if parts := m.integer("split.count", 1); parts > 1 {
		return c, usererr.New("one of %d parts, want a whole model: join them with llama-gguf-split --merge", parts)
	}
	if experts := m.integer("llama.expert_count", 0); experts > 0 {
		return c, usererr.New("llama.expert_count = %d, want none: mixtures of experts are not supported", experts)
	}
	c.HiddenSize = m.required("llama.embedding_length")
	c.IntermediateSize = m.required("llama.feed_forward_length")
	c.Layers = m.required("llama.block_count")
	c.Heads = m.required("llama.attention.head_count")
	c.MaxPositions = m.required("llama.context_length")
	c.RMSNormEps = m.requiredFloat("llama.attention.layer_norm_rms_epsilon")
	c.KVHeads = m.integer("llama.attention.head_count_kv", c.Heads)
	c.RopeTheta = m.float("llama.rope.freq_base", c.RopeTheta)
	c.VocabSize = m.integer("llama.vocab_size", 0)
	if c.VocabSize == 0 {
		if kv, found := file.GetKeyValue("tokenizer.ggml.tokens"); found {
			c.VocabSize = len(kv.Strings())
		}
	}
	if m.err == nil && c.Heads > 0 {
		c.HeadDim = m.integer("llama.attention.key_length", 0)
		if c.HeadDim == 0 {
			if c.HiddenSize%c.Heads != 0 {
				return c, usererr.New("llama.embedding_length = %d, want a multiple of llama.attention.head_count = %d", c.HiddenSize, c.Heads)
			}
			c.HeadDim = c.HiddenSize / c.Heads
		}
		for _, key := range []string{"llama.attention.value_length", "llama.rope.dimension_count"} {
			if n := m.integer(key, c.HeadDim); m.err == nil && n != c.HeadDim {
				return c, usererr.New("%s = %d, want the head dimension %d", key, n, c.HeadDim)
			}
		}
	}
	m.ropeScaling(&c)
	c.SlidingWindow = m.integer("llama.attention.sliding_window", 0) // llama.cpp's converter leaves Mistral's out
	c.BOS = m.integer("tokenizer.ggml.bos_token_id", -1)
	c.EOS = m.endTokens()
	c.PadID = padOr(m.integer("tokenizer.ggml.padding_token_id", -1), c.EOS)
	return c, m.err
}

// ggufMetadata reads typed values and keeps the first error.
type ggufMetadata struct {
	file *gguf.File
	err  error
}

func (m *ggufMetadata) fail(format string, args ...any) {
	if m.err == nil {
		m.err = usererr.New(format, args...)
	}
}

func (m *ggufMetadata) required(key string) int {
	if _, found := m.file.GetKeyValue(key); !found {
		m.fail("metadata %q is absent, want a whole number", key)
	}
	return m.integer(key, 0)
}

func (m *ggufMetadata) integer(key string, absent int) int {
	kv, found := m.file.GetKeyValue(key)
	if !found {
		return absent
	}
	switch v := kv.Raw().(type) {
	case uint8, int8, uint16, int16, uint32, int32, int64:
		return int(kv.Int64())
	case uint64:
		if v > math.MaxInt64 {
			m.fail("metadata %q = %d, want a number of this world", key, v)
			return absent
		}
		return int(v)
	default:
		m.fail("metadata %q has type %T, want a whole number for the entire model", key, v)
		return absent
	}
}

func (m *ggufMetadata) requiredFloat(key string) float64 {
	if _, found := m.file.GetKeyValue(key); !found {
		m.fail("metadata %q is absent, want a number", key)
	}
	return m.float(key, 0)
}

func (m *ggufMetadata) float(key string, absent float64) float64 {
	kv, found := m.file.GetKeyValue(key)
	if !found {
		return absent
	}
	switch v := kv.Raw().(type) {
	case float32:
		// The decimal number that was meant: 1e-05 stored as float32 is 9.99999974e-06.
		f, _ := strconv.ParseFloat(strconv.FormatFloat(float64(v), 'g', -1, 32), 64)
		return f
	case float64:
		return v
	default:
		m.fail("metadata %q has type %T, want a floating-point number", key, v)
		return absent
	}
}

func (m *ggufMetadata) ropeScaling(c *Config) {
	kv, found := m.file.GetKeyValue("llama.rope.scaling.type")
	kind := kv.String()
	if !found || kind == "none" {
		if factor := m.float("llama.rope.scale_linear", 1); factor != 1 { // the older key
			c.RopeScaling = RopeScaling{Type: ropeLinear, Factor: factor}
		}
		return
	}
	if kind != ropeLinear {
		m.fail("llama.rope.scaling.type = %q, want %q", kind, ropeLinear)
		return
	}
	c.RopeScaling = RopeScaling{Type: ropeLinear, Factor: m.requiredFloat("llama.rope.scaling.factor")}
}

// endTokens collects the tokens that end a generation: end of sequence and, in chat models, end of turn.
func (m *ggufMetadata) endTokens() []int {
	var ids []int
	for _, key := range []string{"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"} {
		if id := m.integer(key, -1); id != -1 && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids
}

// ggufReadable are the element types that go-huggingface dequantizes to float32.
var ggufReadable = []gguf.TensorType{
	gguf.TensorTypeQ4_0, gguf.TensorTypeQ4_1, gguf.TensorTypeQ5_0, gguf.TensorTypeQ5_1, gguf.TensorTypeQ8_0,
	gguf.TensorTypeQ2_K, gguf.TensorTypeQ3_K, gguf.TensorTypeQ4_K, gguf.TensorTypeQ5_K, gguf.TensorTypeQ6_K,
}

func ggufStored(file *gguf.File, info gguf.TensorInfo, fileSize int64) (stored, error) {
	s := stored{name: info.Name, file: file.Path(), format: info.Type.String(), dtype: info.Type.GoMLXDType()}
	if info.Type.IsQuantized() && !slices.Contains(ggufReadable, info.Type) {
		return s, usererr.New("element type %s cannot be read, want F32, F16, BF16, Q4_0 to Q8_0 or Q2_K to Q6_K", info.Type)
	}
	elements := uint64(1)
	for _, d := range info.Shape {
		if d < 1 || d > maxVocab || elements > math.MaxInt64/8/d {
			return s, usererr.New("shape %v is absurd", info.Shape)
		}
		elements *= d
	}
	if len(info.Shape) == 0 || info.Shape[0]%uint64(info.Type.BlockSize()) != 0 {
		return s, usererr.New("shape %v, want rows of whole blocks of %d elements", info.Shape, info.Type.BlockSize())
	}
	_, s.dims = info.GoMLXShape()
	s.size = info.NumBytes()
	if info.Offset > math.MaxInt64/2 || file.DataOffset()+int64(info.Offset)+s.size > fileSize {
		return s, usererr.New("the file is cut off: want %d bytes from %d on, came a file of %d", s.size, uint64(file.DataOffset())+info.Offset, fileSize)
	}
	s.offset = file.DataOffset() + int64(info.Offset)
	return s, nil
}

func (s *ggufSource) name(p parameter) string    { return p.gguf }
func (s *ggufSource) tensors() map[string]stored { return s.all }

// ignored: the factors were turned into Config.RopeScaling.
func (s *ggufSource) ignored(name string) bool { return name == ropeFactorsTensor }

// pairedRows: llama.cpp's converter permutes the rows of queries and keys for rotary pairs that are neighbours.
func (s *ggufSource) pairedRows() bool { return true }

func (s *ggufSource) tokenizer() (*tokenizer.Tokenizer, error) { return tokenizer.FromGGUF(s.file) }

func (s *ggufSource) open(t stored) (tensorReader, error) {
	info, _ := s.file.GetTensorInfo(t.name)
	if !info.Type.IsQuantized() {
		return openSection(t)
	}
	reader, err := gguf.NewReader(s.file)
	if err != nil {
		return nil, err
	}
	defer reader.Close()
	// Dequantized as a whole: go-huggingface offers no smaller step. One tensor at a time is in memory.
	values, err := reader.ReadTensor(nil, t.name)
	if err != nil {
		return nil, err
	}
	var data []byte
	if err := values.ConstBytes(func(b []byte) { data = b }); err != nil {
		return nil, err
	}
	return &memoryReader{Reader: *bytes.NewReader(data), free: values.FinalizeLocal}, nil
}

// memoryReader reads bytes that belong to a tensor, and frees it in the end.
type memoryReader struct {
	bytes.Reader
	free func()
}

func (r *memoryReader) Close() error {
	r.Reset(nil)
	r.free()
	return nil
}

// section is the part of a file that holds one tensor.
type section struct {
	file   *os.File
	offset int64
}

func openSection(t stored) (tensorReader, error) {
	file, err := os.Open(t.file)
	if err != nil {
		return nil, err
	}
	return &section{file: file, offset: t.offset}, nil
}

func (s *section) ReadAt(p []byte, off int64) (int, error) { return s.file.ReadAt(p, s.offset+off) }
func (s *section) Close() error                            { return s.file.Close() }
