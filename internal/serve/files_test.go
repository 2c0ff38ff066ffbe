package serve

import (
	"io/fs"
	"net"
	"os"
	"testing"
)

func stat(t *testing.T, path string) fs.FileInfo {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

func chmod(t *testing.T, path string, mode fs.FileMode) {
	t.Helper()
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func entries(t *testing.T, dir string) (names []string) {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}

// leave closes a socket and leaves its file.
func leave(t *testing.T, l net.Listener) {
	t.Helper()
	if err := l.(*socket).Listener.Close(); err != nil {
		t.Fatal(err)
	}
}
