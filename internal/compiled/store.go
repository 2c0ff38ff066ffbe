package compiled

import (
	"bytes"
	"crypto/sha256"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

const (
	suffix = ".xla"
	limit  = 1 << 30 // bytes that a folder may hold
)

// store is a folder of files, each with the SHA-256 of its content in front.
type store struct {
	dir   string
	limit int64
}

// read returns a file's content, and false where there is none or it is damaged. It marks the file
// as used: what was used last is removed last.
func (s store) read(name string) ([]byte, bool) {
	path := filepath.Join(s.dir, name)
	all, err := os.ReadFile(path)
	if err != nil || len(all) <= sha256.Size {
		return nil, false
	}
	sum, content := all[:sha256.Size], all[sha256.Size:]
	if got := sha256.Sum256(content); !bytes.Equal(got[:], sum) {
		return nil, false
	}
	now := time.Now()
	_ = os.Chtimes(path, now, now) // only the order of removal depends on it
	return content, true
}

// write keeps content under name. It then removes files, the least recently used first, until the
// folder is within its limit.
func (s store) write(name string, content []byte) error {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(s.dir, name+".*.tmp")
	if err != nil {
		return err
	}
	sum := sha256.Sum256(content)
	_, err = f.Write(append(sum[:], content...))
	if closing := f.Close(); err == nil {
		err = closing
	}
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(s.dir, name))
	}
	if err != nil {
		os.Remove(f.Name())
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
