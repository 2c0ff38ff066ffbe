package kvq

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/pkg/errors"
)

// A cache is written to ".NAME.NUMBER.saving" beside its file. Whoever writes it holds a lock on
// it, which ends with the process: a file without one was left behind.
const temporarySuffix = ".saving"

// createTemporary makes such a file and locks it.
func createTemporary(path string) (*os.File, error) {
	const attempts = 100
	for range attempts {
		file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*"+temporarySuffix)
		if err != nil {
			return nil, err
		}
		// Another Save may have taken it for a leftover before it was locked. Where there are no
		// locks, nobody does.
		if busy(lock(file)) {
			_ = file.Close()
			continue
		}
		if mine, err := file.Stat(); err == nil {
			if there, err := os.Stat(file.Name()); err == nil && os.SameFile(mine, there) {
				return file, nil
			}
		}
		_ = file.Close()
	}
	return nil, errors.Errorf("a temporary file of %s was removed %d times", path, attempts)
}

// removeLeftovers removes what killed Saves of this path left behind. A failure is not worth an
// error: the next Save tries again.
func removeLeftovers(path string) {
	dir, prefix := filepath.Dir(path), "."+filepath.Base(path)+"."
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		number, found := strings.CutSuffix(e.Name(), temporarySuffix)
		number, ours := strings.CutPrefix(number, prefix)
		if !found || !ours || number == "" || strings.Trim(number, "0123456789") != "" || !e.Type().IsRegular() {
			continue
		}
		name := filepath.Join(dir, e.Name())
		file, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			continue
		}
		free := lock(file) == nil
		if free {
			_ = os.Remove(name) // while it is locked
		}
		_ = file.Close()
		if free {
			_ = os.Remove(name) // Windows removes no open file, so not the one that somebody writes
		}
	}
}
