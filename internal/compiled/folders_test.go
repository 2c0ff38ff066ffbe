//go:build unix

package compiled

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kvqbook/kvqbook/internal/trust"
)

// A file in the place of another is not read: the digest covers its name. So is one that others
// could have written.
func TestStoreReadsOnlyItsOwn(t *testing.T) {
	s := store{dir: t.TempDir(), limit: 1 << 20, owners: trust.Me()}
	for _, name := range []string{"a", "b"} {
		if err := s.write(name, []byte("machine code of "+name)); err != nil {
			t.Fatal(err)
		}
	}
	a, b := filepath.Join(s.dir, "a"), filepath.Join(s.dir, "b")
	if err := os.Rename(a, b); err != nil {
		t.Fatal(err)
	}
	if got, ok := s.read("b"); ok {
		t.Errorf("b, after a took its place: %q", got)
	}
	if err := s.write("a", []byte("machine code of a")); err != nil {
		t.Fatal(err)
	}
	for mode, want := range map[os.FileMode]bool{0o644: true, 0o600: true, 0o664: false, 0o646: false} {
		if err := os.Chmod(a, mode); err != nil {
			t.Fatal(err)
		}
		if _, ok := s.read("a"); ok != want {
			t.Errorf("a file of mode %o: read %v, want %v", mode, ok, want)
		}
	}
	s.owners = trust.Owners{os.Geteuid() + 1}
	if err := os.Chmod(a, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, ok := s.read("a"); ok {
		t.Error("a file of another user was read")
	}
}

func TestFolders(t *testing.T) {
	plugin := filepath.Join(t.TempDir(), "plugin.so")
	if err := os.WriteFile(plugin, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("XDG_CACHE_HOME", filepath.Join(t.TempDir(), "cache"))
	dir := filepath.Join(t.TempDir(), "compiled")

	f, err := open(dir, plugin)
	if err != nil || f.keep.dir != dir {
		t.Fatalf("a folder that is not there yet: kept in %q, %v", f.keep.dir, err)
	}
	if err := f.keep.write("one", []byte("x")); err != nil {
		t.Fatal(err)
	}
	if f, err = open(dir, plugin); err != nil || f.keep.dir != dir {
		t.Errorf("one's own folder: kept in %q, %v", f.keep.dir, err)
	}
	if got, ok := f.lookup("one"); !ok || string(got) != "x" {
		t.Errorf("lookup gave %q %v", got, ok)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := open(dir, plugin); !errors.Is(err, ErrUntrusted) || !strings.Contains(err.Error(), "chmod go-w") {
		t.Errorf("a folder that all can write: %v", err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}

	if os.Geteuid() != 0 {
		t.Skip("what belongs to other users can be tried by root alone")
	}
	const stranger, owner = 4242, 4243
	for _, path := range []string{dir, filepath.Join(dir, "one")} {
		if err := os.Chown(path, owner, -1); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := open(dir, plugin); !errors.Is(err, ErrUntrusted) || !strings.Contains(err.Error(), "user 4243") {
		t.Errorf("a folder of another user: %v", err)
	}
	// The plugin's owner is trusted: the clone is theirs. It is read, and new graphs are one's own.
	if err := os.Chown(plugin, owner, -1); err != nil {
		t.Fatal(err)
	}
	f, err = open(dir, plugin)
	if err != nil || f.keep.dir == dir || !strings.HasSuffix(f.keep.dir, "kvqbook/compiled") {
		t.Fatalf("a shared clone: kept in %q, %v", f.keep.dir, err)
	}
	if got, ok := f.lookup("one"); !ok || string(got) != "x" {
		t.Errorf("a shared clone: lookup gave %q %v", got, ok)
	}
	if err := f.keep.write("two", []byte("y")); err != nil {
		t.Fatal(err)
	}
	if got, ok := f.lookup("two"); !ok || string(got) != "y" {
		t.Errorf("one's own beside a shared clone: lookup gave %q %v", got, ok)
	}
	// A file that a stranger slipped into it is not.
	if err := os.Chown(filepath.Join(dir, "one"), stranger, -1); err != nil {
		t.Fatal(err)
	}
	if _, ok := f.lookup("one"); ok {
		t.Error("a file of a stranger in a shared clone was read")
	}
}
