package kvq

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"io"
	"os"

	"github.com/gomlx/gomlx/core/tensors"
	"github.com/kvqbook/kvqbook/internal/filesys"
	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/pkg/errors"
)

// A cache on disk is a safetensors file: 8 bytes with the length of the header, little-endian; the
// header, JSON; the arrays one after the other in the order of [Plan.Shapes], named as in
// arrays.go. What makes it a cache is its "__metadata__":
//
//	format   "kvq-cache"
//	version  "2"; "3" of a cache with scales of tokens or feedback ([Config.TokenScales], [Feedback])
//	config   [Config] as JSON
//	shape    [Shape] as JSON, the dtype by name
//	sha256   of all bytes after the header, in hexadecimal
//	notes    of [SaveWithNotes], with their notes_sha256; absent without
//
// Format: https://github.com/huggingface/safetensors. go-huggingface reads such files as parts of a
// hub repository only, and without their metadata, so they are read here; every array is known
// beforehand, so a file either has exactly these or is refused.
const (
	fileFormat  = "kvq-cache"
	fileVersion = "2"
	// with scales of tokens or feedback, which programs that know version 2 alone do not have
	fileVersion3 = "3"

	// maxFileHeader bounds what is read before anything is known of a file: a header takes about
	// 150 bytes an array.
	maxFileHeader = 64 << 20
)

// Save writes a state, in the order of [Cache.Nodes], to one file: to a temporary one in the same
// folder first, which then takes the name, so that path never holds half a cache. Temporary files
// of this path that a killed Save left behind are removed.
func Save(path string, p *Plan, state []*tensors.Tensor) error { return save(path, p, state, "") }

func save(path string, p *Plan, state []*tensors.Tensor, notes string) (err error) {
	want := p.arrays()
	if len(state) != len(want) {
		return errors.Errorf("kvq.Save: %d arrays, the state of this cache has %d", len(state), len(want))
	}
	for i, a := range want {
		if !state[i].Shape().Equal(a.shape) {
			return errors.Errorf("kvq.Save: array %d (%s) is %s, want %s", i, a.name, state[i].Shape(), a.shape)
		}
	}
	if err := filesys.CanWrite(path); err != nil {
		return errors.WithMessage(err, "kvq.Save")
	}
	// The digest stands before the data: a first pass makes it, a second writes.
	digest := sha256.New()
	if err := writeArrays(digest, state); err != nil {
		return errors.WithMessage(err, "kvq.Save")
	}
	header, err := p.fileHeader(hex.EncodeToString(digest.Sum(nil)), notes)
	if err != nil {
		return errors.WithMessage(err, "kvq.Save")
	}
	removeLeftovers(path)
	file, err := createTemporary(path)
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
	return publish(file, path)
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

// Load reads what [Save] wrote: the plan, and the state in the order of [Cache.Nodes]. A file that
// is damaged, cut off, of another program or of a newer version is refused with its reason, and so
// is one whose counters and indices no cache of its plan can have; nothing is returned then.
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
	p, m, err := readMetadata(r, size)
	if err != nil {
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
	if err := p.checkState(state); err != nil {
		return nil, nil, err
	}
	return p, state, nil
}

// readMetadata reads what stands before the data in a file of size bytes.
func readMetadata(r io.Reader, size int64) (*Plan, fileMetadata, error) {
	header, data, err := readFileHeader(r, size)
	if err != nil {
		return nil, fileMetadata{}, err
	}
	m, err := metadataOf(header)
	if err != nil {
		return nil, m, err
	}
	p, err := m.plan(len(header))
	if err != nil {
		return nil, m, err
	}
	if want := p.fileVersion(); m.Version != want {
		return nil, m, usererr.New("want version %s of the format for this configuration, got %s", want, m.Version)
	}
	return p, m, p.checkEntries(header, data)
}
