package nb

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Save keeps v under a name for later cells: values do not outlive the cell that made them. What
// was saved before under the name is replaced. It lies in the kernel's own temporary folder, so a
// new kernel begins with nothing.
func Save(name string, v any) { Check(save(name, v)) }

// Load returns what an earlier cell saved.
func Load[T any](name string) T {
	var v T
	Check(load(name, &v))
	return v
}

func save(name string, v any) error {
	path, err := storePath(name)
	if err != nil {
		return err
	}
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("nb.Save: %q: %w", name, err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o600)
}

func load(name string, v any) error {
	path, err := storePath(name)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("nothing was saved as %q yet: run the cells above first", name)
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, v); err != nil {
		return fmt.Errorf("nb.Load: %q: %w", name, err)
	}
	return nil
}

func storePath(name string) (string, error) {
	if name == "" || name != filepath.Base(name) {
		return "", fmt.Errorf("nb: want a plain name for what is saved, got %q", name)
	}
	dir := os.Getenv("GONB_TMP_DIR")
	if dir == "" {
		return "", errors.New("nb: GONB_TMP_DIR is not set: results are kept between the cells of a notebook only")
	}
	return filepath.Join(dir, "saved", name+".json"), nil
}
