package compiled

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/kvqbook/kvqbook/internal/filesys"
	"github.com/kvqbook/kvqbook/internal/trust"
)

const (
	suffix = ".xla"
	limit  = 1 << 30 // bytes that a folder may hold
)

// store is a folder of files, each with a SHA-256 in front. The digest covers the file's name too,
// which stands for the program, the plugin, XLA's settings and the processor: a file that was put
// in the place of another is not read.
type store struct {
	dir    string
	limit  int64
	owners trust.Owners // whose files are read
}

// digest covers a file's name and content.
func digest(name string, content []byte) [sha256.Size]byte {
	h := sha256.New()
	h.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(name))))
	h.Write([]byte(name))
	h.Write(content)
	return [sha256.Size]byte(h.Sum(nil))
}

// read returns a file's content, and false where there is none, it is damaged, or somebody else
// could have written it. It marks the file as used: what was used last is removed last.
func (s store) read(name string) ([]byte, bool) {
	path := filepath.Join(s.dir, name)
	all, err := s.readTrusted(path)
	if err != nil || len(all) <= sha256.Size {
		return nil, false
	}
	sum, content := all[:sha256.Size], all[sha256.Size:]
	if got := digest(name, content); !bytes.Equal(got[:], sum) {
		return nil, false
	}
	now := time.Now()
	_ = os.Chtimes(path, now, now) // only the order of removal depends on it
	return content, true
}

// readTrusted reads a file of one of the owners that nobody else can write.
func (s store) readTrusted(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if err := check(s.owners, path, info); err != nil {
		return nil, err
	}
	return io.ReadAll(f)
}

// write keeps content under name. It then removes files, the least recently used first, until the
// folder is within its limit.
func (s store) write(name string, content []byte) error {
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return err
	}
	sum := digest(name, content)
	// others may read: those who share a clone
	if err := filesys.Write(filepath.Join(s.dir, name), append(sum[:], content...)); err != nil {
		return err
	}
	return s.prune()
}

// prune removes the least recently used files until the rest is within the limit, and temporary
// files that are older than an hour.
func (s store) prune() error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	var files []fs.FileInfo
	var total int64
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() {
			continue // gone meanwhile, or not ours
		}
		switch filepath.Ext(info.Name()) {
		case suffix:
			files, total = append(files, info), total+info.Size()
		case ".tmp":
			if time.Since(info.ModTime()) > time.Hour {
				os.Remove(filepath.Join(s.dir, info.Name()))
			}
		}
	}
	slices.SortFunc(files, func(a, b fs.FileInfo) int { return a.ModTime().Compare(b.ModTime()) })
	for _, info := range files {
		if total <= s.limit {
			break
		}
		if err := os.Remove(filepath.Join(s.dir, info.Name())); err != nil {
			return err
		}
		total -= info.Size()
	}
	return nil
}
