package kvq

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"

	"github.com/gomlx/gomlx/core/tensors"
	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/pkg/errors"
)

// SaveWithNotes is [Save] with a text of the caller's in the header of the file, such as which
// tokens the cache holds and of which model. [Load] reads the file without it, and [ReadNotes] the
// text alone.
func SaveWithNotes(path string, p *Plan, state []*tensors.Tensor, notes string) error {
	return save(path, p, state, notes)
}

// ReadNotes reads the header of a file: the plan of the cache, and the notes that [SaveWithNotes]
// put there, "" for none. It reads no array, so that what does not fit is refused before anything
// is loaded; a file that was cut off is refused too.
func ReadNotes(path string) (p *Plan, notes string, err error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, "", errors.Wrap(err, "kvq.ReadNotes")
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return nil, "", errors.Wrap(err, "kvq.ReadNotes")
	}
	p, m, err := readMetadata(bufio.NewReaderSize(file, 1<<20), info.Size())
	if err == nil {
		err = m.checkNotes()
	}
	if err != nil {
		return nil, "", errors.WithMessagef(err, "kvq.ReadNotes: %s", path)
	}
	return p, m.Notes, nil
}

// notesDigest is the sha256 of notes, "" where there are none.
func notesDigest(notes string) string {
	if notes == "" {
		return ""
	}
	digest := sha256.Sum256([]byte(notes))
	return hex.EncodeToString(digest[:])
}

// checkNotes refuses notes that are not those that were written.
func (m fileMetadata) checkNotes() error {
	if got := notesDigest(m.Notes); got != m.NotesSHA256 {
		return usererr.New("want notes of sha256 %.16q…, got %.16q…: the file is damaged", m.NotesSHA256, got)
	}
	return nil
}

// metadataOf is the metadata of a file's header.
func metadataOf(header map[string]json.RawMessage) (m fileMetadata, err error) {
	if raw, ok := header["__metadata__"]; !ok || json.Unmarshal(raw, &m) != nil || m.Format != fileFormat {
		return m, usererr.New("want a file of format %q, got a safetensors file of another program (format %.40q)", fileFormat, m.Format)
	}
	if m.Version != fileVersion && m.Version != fileVersion3 {
		return m, usererr.New("want version %s or %s of the format, got %.40q: another version of this library wrote the file",
			fileVersion, fileVersion3, m.Version)
	}
	return m, nil
}
