package compiled

import (
	"bytes"
	"path/filepath"
	"testing"

	"github.com/kvqbook/kvqbook/internal/trust"
)

// KeepAll keeps what took no time as well.
func KeepAll(t *testing.T) {
	old := worth
	worth = 0
	t.Cleanup(func() { worth = old })
}

// Counts are of the graphs that were loaded and kept so far.
func Counts() (loaded, kept int64) { return counts.loaded.Load(), counts.kept.Load() }

// Set exchanges the option of the one table of this process.
func Set(t *testing.T, o *Option) {
	old := keeper.option
	keeper.option = o
	t.Cleanup(func() { keeper.option = old })
}

// In returns compile options with the option set.
func (o Option) In(options []byte) []byte { return o.in(options) }

// Put keeps content in the file of that path.
func Put(t *testing.T, path, content string) {
	if err := (store{dir: filepath.Dir(path), limit: limit}).write(filepath.Base(path), []byte(content)); err != nil {
		t.Fatal(err)
	}
}

// Emptied counts the loop fusions that were emptied in the file of that path.
func Emptied(t *testing.T, path string) int {
	content, ok := store{dir: filepath.Dir(path), owners: trust.Me()}.read(filepath.Base(path))
	if !ok {
		t.Fatalf("%s is not read", path)
	}
	return bytes.Count(content, []byte(leftOut))
}
