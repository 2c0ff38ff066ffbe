package main

import (
	"bytes"
	"testing"

	"github.com/kvqbook/kvqbook/internal/cli"
)

func TestTail(t *testing.T) {
	for _, c := range []struct {
		text    string
		columns int
		want    string
	}{
		{"hello", 10, "hello"}, {"hello", 3, "llo"}, {"hello", 0, ""}, {"hello", -1, ""}, {"", 5, ""},
		{"a世界", 4, "世界"}, {"a世界", 3, "界"}, // two columns each
	} {
		if got := tail(c.text, c.columns); got != c.want {
			t.Errorf("the last %d columns of %q are %q, want %q", c.columns, c.text, got, c.want)
		}
	}
}

// On a terminal several texts have a line each, drawn over the lines before; at the end the whole
// texts replace them.
func TestSharing(t *testing.T) {
	t.Setenv("COLUMNS", "20")
	var b bytes.Buffer
	d := &sharing{whole: whole{w: &b, texts: []string{"one", "two"}, clean: cli.Printable}}
	steps := []struct {
		do   func() error
		want string
	}{
		{func() error { return d.add([]string{" and\nmore", ""}) }, "\r\x1b[K[1] one and more\n\x1b[K[2] two\n"},
		{func() error { return d.add([]string{" than that", "\x1b[2J"}) }, "\r\x1b[2A\x1b[K[1]  more than that\n\x1b[K[2] two\ufffd[2J\n"},
		{d.end, "\r\x1b[2A\x1b[J[1] one and\nmore than that\n[2] two\ufffd[2J\n"},
	}
	for i, s := range steps {
		b.Reset()
		if err := s.do(); err != nil {
			t.Fatal(err)
		}
		if b.String() != s.want {
			t.Errorf("step %d wrote %q, want %q", i, b.String(), s.want)
		}
	}
}
