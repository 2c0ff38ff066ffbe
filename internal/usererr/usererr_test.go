package usererr

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"unicode/utf8"
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

// What a stranger's file holds does not make a line that nobody can read; paths stay whole.
func TestLongValuesAreCut(t *testing.T) {
	var into struct{ N int8 }
	number := json.Unmarshal([]byte(`{"N": `+strings.Repeat("7", 100_000)+`}`), &into)
	path := "/tmp/" + strings.Repeat("folder/", 60)
	for _, c := range []struct {
		err         error
		most        int
		begins, has string
	}{
		{New("model.gguf: %w", number), 300, "model.gguf: field \"N\": came 777", "7, want a whole number"},
		{New("%s: want a file", path), 500, path, "want a file"},
		{New("token %q, want another", strings.Repeat("ä", 5000)), 300, "token \"ä", "…"},
		{New("%s, want less", strings.Repeat("many words ", 1000)), 2010, "many words many", "want less"},
		{New("a: %w", New("b: %w", New("c %s", strings.Repeat("9", 5000)))), 250, "a: b: c 999", "…9"},
	} {
		text := c.err.Error()
		if len(text) > c.most || !utf8.ValidString(text) || !strings.HasPrefix(text, c.begins) || !strings.Contains(text, c.has) {
			t.Errorf("%d bytes: %s; want at most %d, %q at the beginning and %q", len(text), text, c.most, c.begins, c.has)
		}
	}
	if !errors.As(New("x: %w", number), new(*json.UnmarshalTypeError)) {
		t.Error("the cause is no longer reachable")
	}
}
