package kvq

import (
	"encoding/binary"
	"encoding/json"
	"io"
	"reflect"
	"slices"

	"github.com/gomlx/compute/dtypes"
	"github.com/kvqbook/kvqbook/internal/usererr"
)

type fileMetadata struct {
	Format  string `json:"format"`
	Version string `json:"version"`
	Config  string `json:"config"`
	Shape   string `json:"shape"`
	SHA256  string `json:"sha256"`

	Notes       string `json:"notes,omitempty"`
	NotesSHA256 string `json:"notes_sha256,omitempty"`
}

type fileEntry struct {
	DType   string   `json:"dtype"`
	Shape   []int    `json:"shape"`
	Offsets [2]int64 `json:"data_offsets"`
}

// fileShape is Shape with the dtype as text. What it lacks is the zero value.
type fileShape struct {
	Layers, Batch, KVHeads, HeadDim, Capacity, SlidingWindow int
	DType                                                    string

	ValueDim   int        `json:",omitempty"`
	Layout     Layout     `json:",omitempty"`
	Attention  *Attention `json:",omitempty"`
	OwnLengths bool       `json:",omitempty"`
}

// ofFile is s as a file has it.
func (s Shape) ofFile() fileShape {
	out := fileShape{Layers: s.Layers, Batch: s.Batch, KVHeads: s.KVHeads, HeadDim: s.HeadDim, Capacity: s.Capacity,
		SlidingWindow: s.SlidingWindow, DType: fileDTypes[s.DType], ValueDim: s.ValueDim, Layout: s.Layout, OwnLengths: s.OwnLengths}
	if !reflect.ValueOf(s.Attention).IsZero() {
		out.Attention = &s.Attention
	}
	return out
}

// fileDTypes are the names that safetensors has for the dtypes of a state.
var fileDTypes = map[dtypes.DType]string{
	dtypes.Float32: "F32", dtypes.Float16: "F16", dtypes.BFloat16: "BF16", dtypes.Int32: "I32", dtypes.Int8: "I8", dtypes.Uint8: "U8",
	dtypes.Uint16: "U16", dtypes.Uint32: "U32",
}

// fileVersion is the version of the format that a file of this plan has: the oldest that can say
// it.
func (p *Plan) fileVersion() string {
	if c := p.config; c.TokenScales || c.FeedbackKey != NoFeedback || c.FeedbackValue != NoFeedback {
		return fileVersion3
	}
	return fileVersion
}

// fileHeader is the JSON header, padded with spaces so that the data begins at a multiple of 8
// bytes.
func (p *Plan) fileHeader(digest, notes string) ([]byte, error) {
	config, err := json.Marshal(p.config)
	if err != nil {
		return nil, err
	}
	shape, err := json.Marshal(p.shape.ofFile())
	if err != nil {
		return nil, err
	}
	entries := map[string]any{"__metadata__": fileMetadata{
		Format: fileFormat, Version: p.fileVersion(), Config: string(config), Shape: string(shape), SHA256: digest,
		Notes: notes, NotesSHA256: notesDigest(notes),
	}}
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
	shape := Shape{Layers: s.Layers, Batch: s.Batch, KVHeads: s.KVHeads, HeadDim: s.HeadDim, Capacity: s.Capacity, SlidingWindow: s.SlidingWindow,
		ValueDim: s.ValueDim, Layout: s.Layout, OwnLengths: s.OwnLengths}
	if s.Attention != nil {
		shape.Attention = *s.Attention
	}
	for dtype, name := range fileDTypes {
		if name == s.DType {
			shape.DType = dtype
		}
	}
	if s.Layers > entries {
		return nil, usererr.New("want the arrays of %d layers, got %d arrays", s.Layers, entries-1)
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
	// in float64, because the product of sizes that a damaged header names may not fit an integer
	total := 0.0
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
