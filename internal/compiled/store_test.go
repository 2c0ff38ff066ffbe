package compiled

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kvqbook/kvqbook/internal/trust"
)

func TestStore(t *testing.T) {
	s := store{dir: filepath.Join(t.TempDir(), "not", "there yet"), limit: 1 << 20, owners: trust.Me()}
	if _, ok := s.read("a" + suffix); ok {
		t.Error("read gave what was never written")
	}
	for name, content := range map[string]string{"a": "machine code", "b": "x"} {
		if err := s.write(name+suffix, []byte(content)); err != nil {
			t.Fatal(err)
		}
		if got, ok := s.read(name + suffix); !ok || string(got) != content {
			t.Errorf("read %s gave %q %v, want %q", name, got, ok, content)
		}
	}
	if left, err := filepath.Glob(filepath.Join(s.dir, "*.tmp")); err != nil || len(left) > 0 {
		t.Errorf("temporary files stay: %q %v", left, err)
	}
}

func TestStoreDamaged(t *testing.T) {
	s := store{dir: t.TempDir(), limit: 1 << 20, owners: trust.Me()}
	const name = "a" + suffix
	if err := s.write(name, []byte("machine code")); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(s.dir, name)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	damaged := map[string][]byte{"empty": nil, "cut off": whole[:len(whole)-1], "sum alone": whole[:32], "one bit": append([]byte{}, whole...)}
	damaged["one bit"][len(whole)-1] ^= 1
	for what, content := range damaged {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if got, ok := s.read(name); ok {
			t.Errorf("%s: read gave %q", what, got)
		}
	}
	if err := s.write(name, []byte("again")); err != nil {
		t.Fatal(err)
	}
	if got, ok := s.read(name); !ok || string(got) != "again" {
		t.Errorf("after writing again: %q %v", got, ok)
	}
}

// The file that was used longest ago goes first, and reading is use.
func TestStoreLimit(t *testing.T) {
	s := store{dir: t.TempDir(), limit: 250, owners: trust.Me()}
	old := time.Now().Add(-2 * time.Hour)
	for i, name := range []string{"a", "b"} {
		if err := s.write(name+suffix, make([]byte, 60)); err != nil {
			t.Fatal(err)
		}
		at := old.Add(time.Duration(i) * time.Minute)
		if err := os.Chtimes(filepath.Join(s.dir, name+suffix), at, at); err != nil {
			t.Fatal(err)
		}
	}
	if _, ok := s.read("a" + suffix); !ok {
		t.Fatal("a is not there")
	}
	// One file that is not ours, and one that a process left behind long ago.
	for _, name := range []string{"other.txt", "x.tmp"} {
		path := filepath.Join(s.dir, name)
		if err := os.WriteFile(path, make([]byte, 1000), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, old, old); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.write("c"+suffix, make([]byte, 60)); err != nil { // 3 x 92 bytes
		t.Fatal(err)
	}
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if got, want := strings.Join(names, " "), "a.xla c.xla other.txt"; got != want {
		t.Errorf("the folder holds %s, want %s", got, want)
	}
}

// A folder that cannot be written is told, so that nothing counts as kept.
func TestStoreNoFolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := (store{dir: filepath.Join(path, "below"), limit: 1}).write("a"+suffix, nil); err == nil {
		t.Error("write below a file gave no error")
	}
}
