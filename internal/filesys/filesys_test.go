package filesys_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/kvqbook/kvqbook/internal/filesys"
)

// A file is replaced whole, others may read it, and nothing else stays in its folder.
func TestWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	for _, text := range []string{"first", "", "another"} {
		if err := filesys.Write(path, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != text {
			t.Errorf("%q, %v, want %q", got, err, text)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o644 {
		t.Errorf("mode %v, %v, want 0644", info.Mode(), err)
	}
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 1 {
		t.Errorf("the folder holds %v, %v", entries, err)
	}
	if err := filesys.Write(filepath.Join(path, "in", "a-file"), nil); err == nil {
		t.Error("written where no folder is")
	}
}

func TestNearest(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct{ of, want string }{
		{dir, dir}, {filepath.Join(dir, "a"), dir}, {filepath.Join(dir, "a", "b", "c"), dir}, {"/", "/"},
	} {
		if got := filesys.Nearest(c.of); got != c.want {
			t.Errorf("of %s: %s, want %s", c.of, got, c.want)
		}
	}
}
