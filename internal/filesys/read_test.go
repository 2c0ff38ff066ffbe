package filesys

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kvqbook/kvqbook/internal/usererr"
)

// What has no end is refused, and so is a file that is larger than what is read.
func TestRead(t *testing.T) {
	if data, err := readAll(strings.NewReader("1234"), 4); err != nil || string(data) != "1234" {
		t.Errorf("%q, %v", data, err)
	}
	if _, err := readAll(strings.NewReader("12345"), 4); err == nil || err.Error() != "more than 4 bytes, want less" {
		t.Errorf("five bytes of four: %v", err)
	}
	large := filepath.Join(t.TempDir(), "large")
	if err := errors.Join(os.WriteFile(large, []byte("x"), 0o600), os.Truncate(large, MostText+1)); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(large); !usererr.Is(err) || !strings.HasPrefix(err.Error(), large+": more than 268435456 bytes") {
		t.Errorf("a large file: %v", err)
	}
	if _, err := Read(large + "r"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}
