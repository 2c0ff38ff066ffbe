package doctest

import (
	"go/format"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kvqbook/kvqbook/internal/testlane"
)

// The program in README compiles, and is formatted as gofmt does it.
func TestReadmesProgram(t *testing.T) {
	testlane.Slow(t, "compiles a program")
	_, program, found := strings.Cut(read(t, "README.md"), "```go\n")
	program, _, closed := strings.Cut(program, "```")
	if !found || !closed {
		t.Fatal("README.md has no program")
	}
	file := filepath.Join(t.TempDir(), "main.go")
	if err := os.WriteFile(file, []byte(program), 0o644); err != nil {
		t.Fatal(err)
	}
	vet := exec.Command("go", "vet", file)
	vet.Dir = root
	if out, err := vet.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if formatted, err := format.Source([]byte(program)); err != nil || string(formatted) != program {
		t.Errorf("not formatted as gofmt does it (error %v)", err)
	}
}
