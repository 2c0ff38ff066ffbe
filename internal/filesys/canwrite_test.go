package filesys

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kvqbook/kvqbook/internal/usererr"
)

// A name is looked at without touching what is there. Root may write everywhere.
func TestCanWrite(t *testing.T) {
	dir := t.TempDir()
	there, shut := filepath.Join(dir, "there"), filepath.Join(dir, "shut")
	if err := errors.Join(os.WriteFile(there, []byte("x"), 0o600), os.Mkdir(shut, 0o500)); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		there:                         "",
		filepath.Join(dir, "new"):     "",
		dir:                           "is a folder",
		"":                            "got none",
		filepath.Join(dir, "no", "x"): "there is no folder " + filepath.Join(dir, "no"),
		filepath.Join(there, "x"):     there + " is no folder",
		filepath.Join(shut, "x"):      "cannot be written to: permission denied",
		"/proc/self/nothing-such":     "cannot be written to",
	} {
		if strings.HasPrefix(path, shut) && os.Getuid() == 0 {
			continue
		}
		err := CanWrite(path)
		if (err == nil) != (want == "") || err != nil && (!usererr.Is(err) || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v, want %q", path, err, want)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 {
		t.Errorf("the folder holds %v, %v", entries, err)
	}
}
