// Package calibration keeps what queries of a model were like in texts that it has read: a small
// file beside the model, which kvq calibrate writes and a cache with kvq.FeedbackCalibrated reads.
package calibration

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"math"
	"os"
	"strings"

	"github.com/kvqbook/kvqbook/internal/filesys"
	"github.com/kvqbook/kvqbook/internal/usererr"
)

// Queries says how a model's queries lie, as attention sees them.
type Queries struct {
	Model                    string // of [modelfile.Files.Identity]
	Layers, KVHeads, HeadDim int
	Tokens                   int      // that were read
	Texts                    []string // SHA-256 of each, in hexadecimal
	// Means are for each layer and key/value head the mean of q·qᵀ over tokens and query heads,
	// [Layers, KVHeads, HeadDim, HeadDim].
	Means []float32
}

// PieceTokens is how many tokens of a text are read at once, fewer where the model reads no more:
// later ones begin anew at position 0.
const PieceTokens = 2048

// Suffix is what a model's own file adds to the model's path.
const Suffix = ".kvq-queries"

// Path is the file beside a model, a file or a folder.
func Path(model string) string { return strings.TrimRight(model, `/\`) + Suffix }

// The file is safetensors: 8 bytes with the length of the header, little-endian; the header, JSON;
// one array "queries", float32. Its "__metadata__" has texts alone, as the format wants it:
//
//	format   "kvq-queries"
//	version  "1"
//	queries  [meta] as JSON
//	sha256   of the array's bytes, in hexadecimal
const (
	fileFormat  = "kvq-queries"
	fileVersion = "1"
	arrayName   = "queries"

	maxHeader = 1 << 20 // bytes: 65 for each text, and little else
	maxSize   = 1 << 16 // of an axis
)

type fileMetadata struct {
	Format  string `json:"format"`
	Version string `json:"version"`
	Queries string `json:"queries"`
	SHA256  string `json:"sha256"`
}

type meta struct {
	Model                    string
	Layers, KVHeads, HeadDim int
	Tokens                   int
	Texts                    []string
}

type fileArray struct {
	DType   string   `json:"dtype"`
	Shape   []int    `json:"shape"`
	Offsets [2]int64 `json:"data_offsets"`
}

// Write writes the file whole: by way of another name.
func Write(path string, q *Queries) error {
	data := make([]byte, 0, 4*len(q.Means))
	for _, x := range q.Means {
		data = binary.LittleEndian.AppendUint32(data, math.Float32bits(x))
	}
	about, err := json.Marshal(meta{q.Model, q.Layers, q.KVHeads, q.HeadDim, q.Tokens, q.Texts})
	if err != nil {
		return err
	}
	digest := sha256.Sum256(data)
	header, err := json.Marshal(map[string]any{
		"__metadata__": fileMetadata{fileFormat, fileVersion, string(about), hex.EncodeToString(digest[:])},
		arrayName:      fileArray{"F32", []int{q.Layers, q.KVHeads, q.HeadDim, q.HeadDim}, [2]int64{0, int64(len(data))}},
	})
	if err != nil {
		return err
	}
	if len(header) > maxHeader-8 {
		return usererr.New("calibration: %d texts are too many for one file, want at most 10,000 or so", len(q.Texts))
	}
	for len(header)%8 != 0 {
		header = append(header, ' ')
	}
	file := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return filesys.Write(path, append(append(file, header...), data...))
}

// Read reads a file that may come from a stranger: what its header says is compared with its size
// before memory is taken. Errors are one line that names the file; a file that is not there is
// fs.ErrNotExist.
func Read(path string) (*Queries, error) {
	q, err := read(path)
	switch {
	case err == nil || errors.Is(err, fs.ErrNotExist):
		return q, err
	case usererr.Is(err):
		return nil, usererr.New("%s: %w", path, err)
	}
	return nil, err
}

func read(path string) (*Queries, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, usererr.New("want a file of kvq calibrate, got a folder or a device")
	}
	return parse(file, info.Size())
}

func parse(r io.Reader, size int64) (*Queries, error) {
	var length uint64
	if err := binary.Read(r, binary.LittleEndian, &length); err != nil {
		return nil, usererr.New("want a file of kvq calibrate, got %d bytes: cut off", size)
	}
	if length > maxHeader || int64(length) > size-8 {
		return nil, usererr.New("want a file of kvq calibrate, got a header of %d bytes in a file of %d: cut off, or another format", length, size)
	}
	text := make([]byte, length)
	if _, err := io.ReadFull(r, text); err != nil {
		return nil, usererr.New("header: %w", err)
	}
	var header struct {
		Metadata fileMetadata `json:"__metadata__"`
		Array    fileArray    `json:"queries"`
	}
	if err := strict(text, &header); err != nil {
		return nil, usererr.New("want a file of kvq calibrate, got another header: %w", err)
	}
	m := header.Metadata
	switch {
	case m.Format != fileFormat:
		return nil, usererr.New("want a file of kvq calibrate, got format %.40q", m.Format)
	case m.Version != fileVersion:
		return nil, usererr.New("want version %s of the format, got %.40q: another kvq wrote it; calibrate again", fileVersion, m.Version)
	}
	var about meta
	if err := strict([]byte(m.Queries), &about); err != nil {
		return nil, usererr.New("header: %w", err)
	}
	q := &Queries{Model: about.Model, Layers: about.Layers, KVHeads: about.KVHeads, HeadDim: about.HeadDim, Tokens: about.Tokens, Texts: about.Texts}
	return q, q.readMeans(r, header.Array, m.SHA256, size-8-int64(length))
}

// readMeans reads the array, of which bytes are left.
func (q *Queries) readMeans(r io.Reader, a fileArray, digest string, bytes int64) error {
	want := []int{q.Layers, q.KVHeads, q.HeadDim, q.HeadDim}
	values := 1.0 // in float64, because the product of sizes that a damaged header names may not fit an integer
	for i, n := range want {
		if n < 1 || n > maxSize {
			return usererr.New("want sizes from 1 to %d, got %v", maxSize, want)
		}
		if len(a.Shape) != len(want) || a.Shape[i] != n {
			return usererr.New("array %s: want shape %v, got %v", arrayName, want, a.Shape)
		}
		values *= float64(n)
	}
	if q.Tokens < 1 {
		return usererr.New("want at least one token, got %d", q.Tokens)
	}
	if a.DType != "F32" || a.Offsets != [2]int64{0, bytes} {
		return usererr.New("array %s: want F32 at [0, %d], got %.40q at %v", arrayName, bytes, a.DType, a.Offsets)
	}
	if 4*values != float64(bytes) {
		return usererr.New("want %.0f bytes of data, got %d: cut off, or damaged", 4*values, bytes)
	}
	data := make([]byte, bytes)
	if _, err := io.ReadFull(r, data); err != nil {
		return usererr.New("data: %w", err)
	}
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != digest {
		return usererr.New("the data is not what was written: damaged")
	}
	q.Means = make([]float32, len(data)/4)
	for i := range q.Means {
		q.Means[i] = math.Float32frombits(binary.LittleEndian.Uint32(data[4*i:]))
	}
	return q.check()
}

// check refuses numbers that no queries have.
func (q *Queries) check() error {
	d := q.HeadDim
	for i, x := range q.Means {
		row, column := i/d%d, i%d
		other := q.Means[i-row*d-column+column*d+row]
		bound := float64(q.Means[i-row*d-column+row*d+row]) * float64(q.Means[i-row*d-column+column*d+column])
		switch {
		case math.IsNaN(float64(x)) || math.IsInf(float64(x), 0):
			return usererr.New("layer %d, head %d, channels %d and %d: %v is no number", i/(q.KVHeads*d*d), i/(d*d)%q.KVHeads, row, column, x)
		case x != other || float64(x)*float64(x) > bound*(1+1e-3)+1e-30 || row == column && x < 0:
			return usererr.New("layer %d, head %d, channels %d and %d: %v is no mean of products", i/(q.KVHeads*d*d), i/(d*d)%q.KVHeads, row, column, x)
		}
	}
	return nil
}

// strict reads JSON that has no fields beside those of value.
func strict(text []byte, value any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	return d.Decode(value)
}
