package modelfile

import (
	"bytes"
	"encoding/binary"
	"io"
	"math"
	"os"
	"regexp"
	"slices"
	"strconv"

	"github.com/gomlx/go-huggingface/models/gguf"

	"github.com/kvqbook/kvqbook/internal/endnames"
	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// ggufSource is a model in one GGUF file.
// Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
type ggufSource struct {
	path string
	arch Arch
	file *gguf.File
	all  map[string]stored
}

// openGGUF reads the header of a GGUF file of size bytes.
func openGGUF(path string, size int64) (Config, *ggufSource, []string, error) {
	if err := checkByteOrder(path); err != nil {
		return Config{}, nil, nil, err
	}
	if err := checkGGUFCounts(path, size); err != nil {
		return Config{}, nil, nil, err
	}
	file, err := gguf.Open(path)
	if err != nil {
		return Config{}, nil, nil, usererr.New("%s: not a complete GGUF file: %w", path, err)
	}
	config, arch, warnings, err := ggufConfig(file)
	if err != nil {
		return Config{}, nil, nil, usererr.New("%s: %w", path, err)
	}
	s := &ggufSource{path: path, arch: arch, file: file, all: make(map[string]stored, len(file.TensorInfos))}
	for _, info := range file.TensorInfos {
		t, err := ggufStored(file, info, size)
		if err != nil {
			return Config{}, nil, nil, usererr.New("%s: tensor %q: %w", path, info.Name, err)
		}
		s.all[info.Name] = t
	}
	if err := noOverlap(s.all); err != nil {
		return Config{}, nil, nil, usererr.New("%s: %w", path, err)
	}
	_, untied := s.all[table[Head].parts[0].gguf]
	config.TieEmbeddings = !untied
	if err := s.ropeFactors(&config); err != nil {
		return Config{}, nil, nil, usererr.New("%s: %w", path, err)
	}
	if err := config.Validate(); err != nil {
		return Config{}, nil, nil, usererr.New("%s: %w", path, err)
	}
	return config, s, warnings, nil
}

// checkByteOrder names files for big-endian machines: their version, a small number, has its bytes
// the other way round.
func checkByteOrder(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	var start [8]byte
	if _, err := io.ReadFull(file, start[:]); err != nil || string(start[:4]) != "GGUF" {
		return nil // too short or no GGUF file: said by who reads it
	}
	if little, big := binary.LittleEndian.Uint32(start[4:]), binary.BigEndian.Uint32(start[4:]); little > 0xFFFF && big <= 0xFFFF {
		return usererr.New("%s: a GGUF file for big-endian machines, want little-endian: convert it with gguf_convert_endian.py of llama.cpp, or take another file", path)
	}
	return nil
}

// Keys of the metadata that describe the model: below the name of its architecture, such as
// "llama.block_count".
const (
	keyHidden       = "embedding_length"
	keyIntermediate = "feed_forward_length"
	keyLayers       = "block_count"
	keyHeads        = "attention.head_count"
	keyKVHeads      = "attention.head_count_kv"
	keyHeadDim      = "attention.key_length"
	keyValueDim     = "attention.value_length"
	keyRotaryDim    = "rope.dimension_count"
	keyPositions    = "context_length"
	keyEps          = "attention.layer_norm_rms_epsilon"
	keyTheta        = "rope.freq_base"
	keyScaling      = "rope.scaling.type"
	keyScalingBy    = "rope.scaling.factor"
	keyScaleLinear  = "rope.scale_linear" // the older key
	keyWindow       = "attention.sliding_window"
	keyVocab        = "vocab_size"
	keyExperts      = "expert_count"
)

// Keys that are the same for all architectures.
const (
	keyParts  = "split.count"
	keyTokens = "tokenizer.ggml.tokens"
	keyBOS    = "tokenizer.ggml.bos_token_id"
	keyPad    = "tokenizer.ggml.padding_token_id"
)

// keysEnd are the tokens that end a generation: end of sequence and, in chat models, end of turn.
var keysEnd = []string{"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"}

// ggufConfig reads the metadata. Ranges are Validate's business.
func ggufConfig(file *gguf.File) (Config, Arch, []string, error) {
	c := Config{RopeTheta: 10000, BOS: -1}
	arch, err := archOfGGUF(file.Architecture())
	if err != nil {
		return c, arch, nil, err
	}
	c.Architecture = arch.Name
	of := func(key string) string { return arch.GGUF + "." + key }
	m := ggufMetadata{file: file}
	if parts := m.integer(keyParts, 1); parts > 1 {
		return c, arch, nil, usererr.New("one of %d parts, want a whole model: join them with llama-gguf-split --merge", parts)
	}
	if experts := m.integer(of(keyExperts), 0); experts > 0 {
		return c, arch, nil, usererr.New("%s = %d, want none: mixtures of experts are not supported", of(keyExperts), experts)
	}
	for _, f := range []struct {
		key string
		to  *int
	}{
		{keyHidden, &c.HiddenSize}, {keyIntermediate, &c.IntermediateSize}, {keyLayers, &c.Layers}, {keyHeads, &c.Heads}, {keyPositions, &c.MaxPositions},
	} {
		*f.to = m.required(of(f.key))
	}
	c.RMSNormEps = m.requiredFloat(of(keyEps))
	c.KVHeads = m.integer(of(keyKVHeads), c.Heads)
	c.RopeTheta = m.float(of(keyTheta), c.RopeTheta)
	c.VocabSize = m.integer(of(keyVocab), 0)
	if c.VocabSize == 0 {
		if kv, found := file.GetKeyValue(keyTokens); found {
			c.VocabSize = len(kv.Strings())
		}
	}
	if m.err == nil && c.Heads > 0 {
		c.HeadDim = m.integer(of(keyHeadDim), 0)
		if c.HeadDim == 0 {
			if c.HiddenSize%c.Heads != 0 {
				return c, arch, nil, usererr.New("%s = %d, want a multiple of %s = %d", of(keyHidden), c.HiddenSize, of(keyHeads), c.Heads)
			}
			c.HeadDim = c.HiddenSize / c.Heads
		}
		for _, key := range []string{of(keyValueDim), of(keyRotaryDim)} {
			if n := m.integer(key, c.HeadDim); m.err == nil && n != c.HeadDim {
				return c, arch, nil, usererr.New("%s = %d, want the head dimension %d", key, n, c.HeadDim)
			}
		}
	}
	m.ropeScaling(&c, of)
	c.SlidingWindow = m.integer(of(keyWindow), 0) // llama.cpp's converter leaves Mistral's out
	ids := specialIDs{vocabulary: c.VocabSize}
	c.BOS = ids.known(keyBOS, m.integer(keyBOS, -1))
	c.EOS = m.endTokens(&ids)
	c.PadID = padOr(ids.known(keyPad, m.integer(keyPad, -1)), c.EOS)
	return c, arch, ids.warnings, m.err
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

// ropeScaling reads keys that of completes.
func (m *ggufMetadata) ropeScaling(c *Config, of func(string) string) {
	kv, found := m.file.GetKeyValue(of(keyScaling))
	kind := kv.String()
	if !found || kind == "none" {
		if factor := m.float(of(keyScaleLinear), 1); factor != 1 {
			c.RopeScaling = RopeScaling{Type: ropeLinear, Factor: factor}
		}
		return
	}
	if kind != ropeLinear {
		m.fail("%s = %q, want %q", of(keyScaling), kind, ropeLinear)
		return
	}
	c.RopeScaling = RopeScaling{Type: ropeLinear, Factor: m.requiredFloat(of(keyScalingBy))}
}

// endTokens are those that the keys name, then those whose names say so.
func (m *ggufMetadata) endTokens(ids *specialIDs) []int {
	var ends []int
	for _, key := range keysEnd {
		if id := ids.known(key, m.integer(key, -1)); id != -1 && !slices.Contains(ends, id) {
			ends = append(ends, id)
		}
	}
	if kv, found := m.file.GetKeyValue(keyTokens); found {
		for _, id := range endnames.In(kv.Strings()) {
			if id < ids.vocabulary && !slices.Contains(ends, id) {
				ends = append(ends, id)
			}
		}
	}
	return ends
}

// ggufReadable are the element types that go-huggingface dequantizes to float32.
var ggufReadable = []gguf.TensorType{
	gguf.TensorTypeQ4_0, gguf.TensorTypeQ4_1, gguf.TensorTypeQ5_0, gguf.TensorTypeQ5_1, gguf.TensorTypeQ8_0,
	gguf.TensorTypeQ2_K, gguf.TensorTypeQ3_K, gguf.TensorTypeQ4_K, gguf.TensorTypeQ5_K, gguf.TensorTypeQ6_K,
}

func ggufStored(file *gguf.File, info gguf.TensorInfo, fileSize int64) (stored, error) {
	s := stored{name: info.Name, file: file.Path(), format: info.Type.String(), dtype: info.Type.GoMLXDType()}
	here, ours := blockTypes[info.Type]
	if info.Type.IsQuantized() && !ours && !slices.Contains(ggufReadable, info.Type) {
		return s, usererr.New("element type %s cannot be read, want F32, F16, BF16, Q4_0 to Q8_0, Q2_K to Q6_K, IQ4_NL, IQ4_XS or MXFP4", info.Type)
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
	if ours {
		s.size = int64(elements) / int64(here.elements) * int64(here.bytes)
	}
	if info.Offset > math.MaxInt64/2 || file.DataOffset()+int64(info.Offset)+s.size > fileSize {
		return s, usererr.New("the file is cut off: want %d bytes from %d on, came a file of %d", s.size, uint64(file.DataOffset())+info.Offset, fileSize)
	}
	s.offset = file.DataOffset() + int64(info.Offset)
	return s, nil
}

func (s *ggufSource) name(w Weight) string       { return w.GGUF }
func (s *ggufSource) tensors() map[string]stored { return s.all }

// rotaryTensors are tables that old converters left in; they follow from the configuration.
var rotaryTensors = regexp.MustCompile(`(^|\.)rotary_emb\.inv_freq$|^blk\.\d+\.attn_rot_embd(\.weight)?$`)

// ignored: the factors were turned into Config.RopeScaling.
func (s *ggufSource) ignored(name string) bool {
	return name == ropeFactorsTensor || rotaryTensors.MatchString(name)
}

// pairedRows: llama.cpp's converter permutes the rows of queries and keys, where its graph rotates
// neighbours.
func (s *ggufSource) pairedRows() bool { return s.arch.PairedRows }

func (s *ggufSource) tokenizer() (*tokenizer.Tokenizer, error) { return tokenizer.FromGGUF(s.file) }

func (s *ggufSource) open(t stored) (tensorReader, error) {
	info, _ := s.file.GetTensorInfo(t.name)
	if !info.Type.IsQuantized() {
		return openSection(t)
	}
	if here, ours := blockTypes[info.Type]; ours {
		section, err := openSection(t)
		if err != nil {
			return nil, err
		}
		return blockReader{section, here}, nil
	}
	reader, err := gguf.NewReader(s.file)
	if err != nil {
		return nil, err
	}
	defer reader.Close()
	// Dequantized as a whole: go-huggingface offers no smaller step. One tensor at a time is in
	// memory.
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
