package usererr

import (
	"errors"
	"fmt"
	"io/fs"
	"testing"
)

func TestIs(t *testing.T) {
	bad := New("model %q: want a file, came a folder", "m")
	for _, c := range []struct {
		name string
		err  error
		want bool
	}{
		{"nil", nil, false},
		{"plain", errors.New("disk on fire"), false},
		{"input", bad, true},
		{"wrapped input", fmt.Errorf("loading: %w", bad), true},
		{"joined input", errors.Join(errors.New("x"), bad), true},
	} {
		if got := Is(c.err); got != c.want {
			t.Errorf("Is(%s) = %v, want %v", c.name, got, c.want)
		}
		if got := errors.Is(c.err, ErrInput); got != c.want {
			t.Errorf("errors.Is(%s, ErrInput) = %v, want %v", c.name, got, c.want)
		}
	}
}

func TestNewKeepsCauseAndOneLine(t *testing.T) {
	err := New("a.gguf: %w", fmt.Errorf("two\nlines: %w", fs.ErrNotExist))
	if want := "a.gguf: two lines: file does not exist"; err.Error() != want {
		t.Errorf("message %q, want %q", err, want)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		t.Error("the cause is no longer reachable")
	}
}
