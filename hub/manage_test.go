package hub

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// What was fetched is listed as ready, with all its bytes, and is gone once it is removed; other
// models stay.
func TestListAndRemove(t *testing.T) {
	s := newHub(t)
	r := newReader(t, s, secret)
	folder := r.must(gated)
	dir := filepath.Join(r.home, "hub")
	for name, content := range map[string]string{
		"models--org--cut/blobs/1.incomplete": "half", "datasets--org--data/blobs/1": "no model", ".locks/models--org--cut/1.lock": "",
	} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	list, err := List("")
	if err != nil || len(list) != 2 {
		t.Fatalf("%+v, %v; want two models", list, err)
	}
	if got := list[0]; got.Repo != gated || !got.Complete || got.Partial != 0 || got.Bytes < 505_000 {
		t.Errorf("%+v", got)
	}
	if got := list[1]; got != (Stored{Repo: "org/cut", Bytes: 4, Partial: 4}) {
		t.Errorf("%+v", got)
	}
	if got, err := Remove(gated, ""); err != nil || got != list[0] {
		t.Errorf("removed %+v, %v; want %+v", got, err, list[0])
	}
	if _, err := os.Stat(folder); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s: %v, want it gone", folder, err)
	}
	if _, err := Remove(gated, ""); !is(err, ErrNoModel) || !is(err, ErrInput) {
		t.Errorf("a second time: %v", err)
	}
	if list, err := List(""); err != nil || len(list) != 1 || list[0].Repo != "org/cut" {
		t.Errorf("%+v, %v; the other model should be there", list, err)
	}
	if list, err := List(filepath.Join(dir, "nowhere")); err != nil || len(list) != 0 {
		t.Errorf("%+v, %v of a folder that is not there", list, err)
	}
}
