package kvq

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/pkg/errors"
)

// A cache on disk is a safetensors file: 8 bytes with the length of the header, little-endian; the
// header, JSON; the arrays one after the other in the order of [Plan.Shapes], named as in
// arrays.go. What makes it a cache is its "__metadata__":
//
//	format   "kvq-cache"
//	version  "2"
//	config   [Config] as JSON
//	shape    [Shape] as JSON, the dtype by name
//	sha256   of all bytes after the header, in hexadecimal
//
// Format: https://github.com/huggingface/safetensors. go-huggingface reads such files as parts of a
// hub repository only, and without their metadata, so they are read here; every array is known
// beforehand, so a file either has exactly these or is refused.
const (
	fileFormat  = "kvq-cache"
	fileVersion = "2"

	// maxFileHeader bounds what is read before anything is known of a file: a header takes about
	// 150 bytes an array.
	maxFileHeader = 64 << 20
)

type fileMetadata struct {
	Format  string `json:"format"`
	Version string `json:"version"`
	Config  string `json:"config"`
	Shape   string `json:"shape"`
	SHA256  string `json:"sha256"`
}

type fileEntry struct {
	DType   string   `json:"dtype"`
	Shape   []int    `json:"shape"`
	Offsets [2]int64 `json:"data_offsets"`
}

// fileShape is Shape with the dtype as text.
type fileShape struct {
	Layers, Batch, KVHeads, HeadDim, Capacity, SlidingWindow int
	DType                                                    string
}

// fileDTypes are the names that safetensors has for the dtypes of a state.
var fileDTypes = map[dtypes.DType]string{
	dtypes.Float32: "F32", dtypes.Float16: "F16", dtypes.BFloat16: "BF16", dtypes.Int32: "I32", dtypes.Int8: "I8", dtypes.Uint8: "U8",
	dtypes.Uint16: "U16", dtypes.Uint32: "U32",
}

// Save writes a state, in the order of [Cache.Nodes], to one file: to a temporary one in the same
// folder first, which then takes the name, so that path never holds half a cache.
func Save(path string, p *Plan, state []*tensors.Tensor) (err error) {
	want := p.arrays()
	if len(state) != len(want) {
		return errors.Errorf("kvq.Save: %d arrays, the state of this cache has %d", len(state), len(want))
	}
	for i, a := range want {
		if !state[i].Shape().Equal(a.shape) {
			return errors.Errorf("kvq.Save: array %d (%s) is %s, want %s", i, a.name, state[i].Shape(), a.shape)
		}
	}
	// The digest stands before the data: a first pass makes it, a second writes.
	digest := sha256.New()
	if err := writeArrays(digest, state); err != nil {
		return errors.WithMessage(err, "kvq.Save")
	}
	header, err := p.fileHeader(hex.EncodeToString(digest.Sum(nil)))
	if err != nil {
		return errors.WithMessage(err, "kvq.Save")
	}
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return errors.Wrapf(err, "kvq.Save")
	}
	defer func() {
		if err != nil {
			_ = file.Close()
			_ = os.Remove(file.Name())
			err = errors.WithMessagef(err, "kvq.Save: %s", path)
		}
	}()
	w := bufio.NewWriterSize(file, 1<<20)
	if err := binary.Write(w, binary.LittleEndian, uint64(len(header))); err != nil {
		return err
	}
	if _, err := w.Write(header); err != nil {
		return err
	}
	if err := writeArrays(w, state); err != nil {
		return err
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if err := file.Chmod(0o644); err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	return os.Rename(file.Name(), path)
}

func writeArrays(w io.Writer, state []*tensors.Tensor) error {
	for _, x := range state {
		var err error
		if e := x.ConstBytes(func(data []byte) { _, err = w.Write(data) }); e != nil {
			return e
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// fileHeader is the JSON header, padded with spaces so that the data begins at a multiple of 8
// bytes.
func (p *Plan) fileHeader(digest string) ([]byte, error) {
	config, err := json.Marshal(p.config)
	if err != nil {
		return nil, err
	}
	s := p.shape
	shape, err := json.Marshal(fileShape{s.Layers, s.Batch, s.KVHeads, s.HeadDim, s.Capacity, s.SlidingWindow, fileDTypes[s.DType]})
	if err != nil {
		return nil, err
	}
	entries := map[string]any{"__metadata__": fileMetadata{fileFormat, fileVersion, string(config), string(shape), digest}}
	for name, e := range p.fileEntries() {
		entries[name] = e
	}
	header, err := json.Marshal(entries)
	if err != nil {
		return nil, err
	}
	for len(header)%8 != 0 {
		header = append(header, ' ')
	}
	return header, nil
}

// fileEntries says where each array lies.
func (p *Plan) fileEntries() map[string]fileEntry {
	out := map[string]fileEntry{}
	var at int64
	for _, a := range p.arrays() {
		end := at + int64(a.shape.ByteSize())
		out[a.name] = fileEntry{fileDTypes[a.shape.DType], append([]int{}, a.shape.Dimensions...), [2]int64{at, end}}
		at = end
	}
	return out
}

// Load reads what [Save] wrote: the plan, and the state in the order of [Cache.Nodes]. A file that
// is damaged, cut off, of another program or of a newer version is refused with its reason, and
// nothing is returned.
func Load(path string) (*Plan, []*tensors.Tensor, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, nil, errors.Wrap(err, "kvq.Load")
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return nil, nil, errors.Wrap(err, "kvq.Load")
	}
	p, state, err := readCache(bufio.NewReaderSize(file, 1<<20), info.Size())
	return p, state, errors.WithMessagef(err, "kvq.Load: %s", path)
}

// readCache reads a file of size bytes.
func readCache(r io.Reader, size int64) (*Plan, []*tensors.Tensor, error) {
	header, data, err := readFileHeader(r, size)
	if err != nil {
		return nil, nil, err
	}
	var m fileMetadata
	if raw, ok := header["__metadata__"]; !ok || json.Unmarshal(raw, &m) != nil || m.Format != fileFormat {
		return nil, nil, usererr.New("want a file of format %q, got a safetensors file of another program (format %.40q)", fileFormat, m.Format)
	}
	if m.Version != fileVersion {
		return nil, nil, usererr.New("want version %s of the format, got %.40q: another version of this library wrote the file", fileVersion, m.Version)
	}
	p, err := m.plan(len(header))
	if err != nil {
		return nil, nil, err
	}
	if err := p.checkEntries(header, data); err != nil {
		return nil, nil, err
	}
	digest := sha256.New()
	r = io.TeeReader(r, digest)
	var state []*tensors.Tensor
	for _, a := range p.arrays() {
		x := tensors.FromShape(a.shape)
		var readErr error
		if err := x.MutableBytes(func(data []byte) { _, readErr = io.ReadFull(r, data) }); err != nil {
			return nil, nil, err
		}
		if readErr != nil {
			return nil, nil, usererr.New("array %s: %w", a.name, readErr)
		}
		state = append(state, x)
	}
	if got := hex.EncodeToString(digest.Sum(nil)); got != m.SHA256 {
		return nil, nil, usererr.New("want data of sha256 %.16q…, got %.16q…: the file is damaged", m.SHA256, got)
	}
	return p, state, nil
}

// readFileHeader reads the header of a safetensors file of size bytes, and says how many bytes of
// data follow.
func readFileHeader(r io.Reader, size int64) (header map[string]json.RawMessage, data int64, err error) {
	var length uint64
	if err := binary.Read(r, binary.LittleEndian, &length); err != nil {
		return nil, 0, usererr.New("want a safetensors file, got %d bytes", size)
	}
	if length > maxFileHeader || int64(length) > size-8 {
		return nil, 0, usererr.New("want a safetensors file, got a header of %d bytes in a file of %d: cut off, or another format", length, size)
	}
	text := make([]byte, length)
	if _, err := io.ReadFull(r, text); err != nil {
		return nil, 0, usererr.New("header: %w", err)
	}
	if err := json.Unmarshal(text, &header); err != nil {
		return nil, 0, usererr.New("want a safetensors file, got a header that is not JSON: %v", err)
	}
	return header, size - 8 - int64(length), nil
}

// plan makes the plan that a file was saved with. A file is not to be believed: sizes that its
// header has no room for are refused before anything of that size is made.
func (m fileMetadata) plan(entries int) (*Plan, error) {
	const maxText = 1 << 16
	if len(m.Config) > maxText || len(m.Shape) > maxText {
		return nil, usererr.New("want a configuration of at most %d bytes, got %d", maxText, max(len(m.Config), len(m.Shape)))
	}
	var config Config
	if err := strictJSON(m.Config, &config); err != nil {
		return nil, usererr.New("configuration: %v", err)
	}
	var s fileShape
	if err := strictJSON(m.Shape, &s); err != nil {
		return nil, usererr.New("shape: %v", err)
	}
	shape := Shape{Layers: s.Layers, Batch: s.Batch, KVHeads: s.KVHeads, HeadDim: s.HeadDim, Capacity: s.Capacity, SlidingWindow: s.SlidingWindow}
	for dtype, name := range fileDTypes {
		if name == s.DType {
			shape.DType = dtype
		}
	}
	if s.Layers > entries {
		return nil, usererr.New("want the arrays of %d layers, got %d arrays", s.Layers, entries-1)
	}
	for _, n := range []int{s.Batch, s.KVHeads, s.HeadDim, s.Capacity, s.SlidingWindow, config.ResidualLength, config.Sinks,
		config.QGroupSize, config.QGroupSizeKey, config.QGroupSizeValue} {
		if n > math.MaxInt32 {
			return nil, usererr.New("want sizes of at most %d, got %d", math.MaxInt32, n)
		}
	}
	return New(config, shape)
}

// checkEntries compares the header's arrays with the plan's, and their sizes with the bytes of
// data.
func (p *Plan) checkEntries(header map[string]json.RawMessage, data int64) error {
	arrays := p.arrays()
	if len(header)-1 != len(arrays) {
		return usererr.New("want %d arrays, got %d", len(arrays), len(header)-1)
	}
	total := 0.0 // in float64, because the product of sizes that a damaged header names may not fit an integer
	for _, a := range arrays {
		bytes := float64(a.shape.DType.Size())
		for _, d := range a.shape.Dimensions {
			bytes *= float64(d)
		}
		total += bytes
	}
	if total != float64(data) {
		return usererr.New("want %.0f bytes of data, got %d: the file is cut off, or not one cache", total, data)
	}
	for name, want := range p.fileEntries() {
		var got fileEntry
		if raw, ok := header[name]; !ok {
			return usererr.New("want an array %s, got none", name)
		} else if err := json.Unmarshal(raw, &got); err != nil {
			return usererr.New("array %s: %v", name, err)
		}
		if got.DType != want.DType || !slices.Equal(got.Shape, want.Shape) || got.Offsets != want.Offsets {
			return usererr.New("array %s: want %+v, got %+v", name, want, got)
		}
	}
	return nil
}
