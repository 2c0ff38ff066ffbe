package compiled

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/kvqbook/kvqbook/internal/trust"
)

// waitsAt lets a test remember waits in a folder.
func waitsAt(t *testing.T, dir string) folders {
	one := store{dir: dir, limit: limit, owners: trust.Me()}
	in := folders{[]store{one}, one}
	before := waitsIn.Swap(&in)
	t.Cleanup(func() { waitsIn.Store(before) })
	return in
}

// A wait is told by another process, the newest of a key; what was not waited for is not known.
func TestWaits(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not there yet")
	waitsAt(t, dir)
	var w Waits
	if _, ok := w.Last("a"); ok {
		t.Error("a wait is known that never was")
	}
	w.Took("a", 9600*time.Millisecond)
	w.Took("b", time.Second)
	w.Took("a", 2*time.Second)
	w.Took("c", 0)
	w.Took("c", 25*time.Hour)
	for key, want := range map[string]time.Duration{"a": 2 * time.Second, "b": time.Second, "c": 0} {
		if got, ok := w.Last(key); got != want || ok != (want > 0) {
			t.Errorf("%s: %v, %t, want %v", key, got, ok, want)
		}
	}
}

// Without a folder nothing is remembered, and nothing fails.
func TestWaitsNowhere(t *testing.T) {
	before := waitsIn.Swap(nil)
	defer waitsIn.Store(before)
	Waits{}.Took("a", time.Second)
	if _, ok := (Waits{}).Last("a"); ok {
		t.Error("remembered without a folder")
	}
}

// A damaged file is none, and so is one that others can write.
func TestWaitsDamaged(t *testing.T) {
	dir := t.TempDir()
	waitsAt(t, dir)
	var w Waits
	path := filepath.Join(dir, waitsName)
	for what, damage := range map[string]func() error{
		"cut off":            func() error { return os.Truncate(path, 40) },
		"not ours":           func() error { return os.WriteFile(path, []byte(`{"a":{"s":1}}`), 0o644) },
		"written by others":  func() error { return os.Chmod(path, 0o666) },
		"whole, but no JSON": func() error { return waitsIn.Load().keep.write(waitsName, []byte("{")) },
		"no numbers":         func() error { return waitsIn.Load().keep.write(waitsName, []byte(`{"`+waitKey("a")+`":{"s":-1}}`)) },
	} {
		os.Remove(path)
		w.Took("a", time.Second)
		if _, ok := w.Last("a"); !ok {
			t.Fatal("not remembered")
		}
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		if got, ok := w.Last("a"); ok {
			t.Errorf("%s: %v", what, got)
		}
		w.Took("b", time.Second)
		if _, ok := w.Last("b"); !ok {
			t.Errorf("%s: nothing is remembered any more", what)
		}
	}
}

// The file is bounded: the oldest are forgotten.
func TestWaitsAreBounded(t *testing.T) {
	in := waitsAt(t, t.TempDir())
	var w Waits
	for i := range mostWaits + 20 {
		w.Took(fmt.Sprint(i), time.Second)
	}
	if n := len(readWaits(in)); n != mostWaits {
		t.Errorf("%d are remembered, want %d", n, mostWaits)
	}
	if _, ok := w.Last(fmt.Sprint(mostWaits + 19)); !ok {
		t.Error("the newest was forgotten")
	}
	if n, err := os.Stat(filepath.Join(in.keep.dir, waitsName)); err != nil || n.Size() > 20_000 {
		t.Errorf("%v, %v", n, err)
	}
}
