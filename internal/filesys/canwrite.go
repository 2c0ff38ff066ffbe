package filesys

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/kvqbook/kvqbook/internal/usererr"
)

// CanWrite tells, before the work whose result the file is for, whether it can be written: nil, or
// one line of bad input. What is there stays.
func CanWrite(path string) error {
	if path == "" {
		return usererr.New("want the name of a file, got none")
	}
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return usererr.New("%s is a folder, want the name of a file", path)
	}
	dir := filepath.Dir(path)
	if info, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return usererr.New("%s: there is no folder %s", path, dir)
	} else if err == nil && !info.IsDir() {
		return usererr.New("%s: %s is no folder", path, dir)
	}
	f, err := os.CreateTemp(dir, ".kvq.*.tmp")
	if err != nil {
		if e := (*fs.PathError)(nil); errors.As(err, &e) {
			err = e.Err
		}
		return usererr.New("%s: the folder %s cannot be written to: %w", path, dir, err)
	}
	_ = f.Close()
	return os.Remove(f.Name())
}
