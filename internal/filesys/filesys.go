// Package filesys has what several packages do with files.
package filesys

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// Write writes a file of mode 0644 by way of a temporary name, NAME.NUMBER.tmp, beside it: a kill
// leaves the old one or the new one. The folder has to be there.
func Write(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.tmp")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // not there any more, if all went well
	_, err = f.Write(data)
	if err := errors.Join(err, f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// Nearest is a folder, or the nearest one above it that is there.
func Nearest(dir string) string {
	for {
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir) {
			return dir
		}
		dir = filepath.Dir(dir)
	}
}
