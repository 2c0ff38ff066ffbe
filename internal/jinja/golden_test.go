package jinja

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// goldens are what scripts/make-template-goldens.py wrote: templates and what transformers made of
// them.
type goldens struct {
	Conversations, Variables map[string]json.RawMessage
	Templates                []string
	Cases                    []struct {
		Name, Conversation, Variables string
		Template                      int
		Prompt                        bool
		Result                        *string
		Error, Raised                 string
	}
}

func readGoldens(t testing.TB, file string) goldens {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	packed, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var g goldens
	if err := json.NewDecoder(packed).Decode(&g); err != nil {
		t.Fatal(err)
	}
	return g
}

// ordered reads JSON and keeps the order of keys, and integers apart from floats.
func ordered(t testing.TB, raw []byte) any {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var read func() any
	next := func() json.Token {
		token, err := d.Token()
		if err != nil && err != io.EOF {
			t.Fatal(err)
		}
		return token
	}
	var value func(json.Token) any
	read = func() any { return value(next()) }
	value = func(token json.Token) any {
		switch token := token.(type) {
		case json.Delim:
			if token == '[' {
				items := []any{}
				for d.More() {
					items = append(items, read())
				}
				next()
				return items
			}
			entries := Dict{}
			for d.More() {
				entries = append(entries, Entry{next().(string), read()})
			}
			next()
			return entries
		case json.Number:
			if i, err := token.Int64(); err == nil {
				return i
			}
			f, err := token.Float64()
			if err != nil {
				t.Fatal(err)
			}
			return f
		}
		return token
	}
	return read()
}

func noon() time.Time { return time.Date(2024, time.July, 26, 12, 0, 0, 0, time.UTC) }

// withDefaults are the variables that transformers always gives.
func withDefaults(messages any, prompt bool, more Dict) Dict {
	values := Dict{{"messages", messages}, {"tools", nil}, {"documents", nil}, {"add_generation_prompt", prompt}}
	return append(values, more...)
}

// refused are constructs that transformers renders and this package refuses by name.
var refused = []string{
	"truncate", "groupby", "wordwrap", "striptags", "filesizeformat", "xmlattr", "pprint", // filters
	"{% block", "{% autoescape", "lipsum", "cycler", "{{ self",
	"'{:>5}'.format", "encode(", "expandtabs(", "round(-1)", // text and numbers
	"5 is sameas 5", "'x' is sameas 'x'", // what Python's memory decides
	// Python's text has addresses in memory.
	"{'items': 1}.items }}", "{{ text.upper }}", "{{ numbers | map('string') }}", "{{ range }}",
	"123456789012345678901234567890", "9223372036854775807 + 1",
	"'x' | e + '<'",
	// In Jinja2 tools are not defined in the loop.
	"{% for m in messages %}{{ tools }}{% endfor %}{% set tools = 1 %}",
}

// Every template gives what transformers gives, or an error where transformers has one. What this
// package cannot do, it refuses by name; nothing gives another text.
func TestGoldens(t *testing.T) {
	files := []string{filepath.Join("testdata", "templates.json.gz")}
	if more := os.Getenv("KVQ_TEMPLATES"); more != "" {
		files = append(files, more)
	}
	for _, file := range files {
		g := readGoldens(t, file)
		counted := 0
		for _, c := range g.Cases {
			variables := ordered(t, g.Variables[c.Variables]).(Dict)
			source := g.Templates[c.Template]
			values := withDefaults(ordered(t, g.Conversations[c.Conversation]), c.Prompt, variables)
			got, err := render(t, source, values, Limits{})
			switch {
			case err != nil && strings.Contains(err.Error(), "not supported"):
				if c.Result != nil {
					counted++
					if !known(source) {
						t.Errorf("%s: %v, in\n%q", c.Name, err, source)
					}
				}
			case c.Result == nil && err == nil:
				t.Errorf("%s: %q, want an error: transformers has %s %s, in\n%q", c.Name, got, c.Error, c.Raised, source)
			case c.Result != nil && err != nil:
				t.Errorf("%s, conversation %q: %v, in\n%q\nwant %q", c.Name, c.Conversation, err, source, *c.Result)
			case c.Result != nil && got != *c.Result:
				t.Errorf("%s, conversation %q, in\n%q\n got %q\nwant %q", c.Name, c.Conversation, source, got, *c.Result)
			case c.Raised != "" && err.Error() != oneLine(c.Raised):
				t.Errorf("%s: %q, want %q", c.Name, err, c.Raised)
			}
		}
		t.Logf("%s: %d cases of %d templates, %d refused by name", file, len(g.Cases), len(g.Templates), counted)
	}
}

func known(source string) bool {
	for _, r := range refused {
		if strings.Contains(source, r) {
			return true
		}
	}
	return false
}

func render(t testing.TB, source string, values Dict, limits Limits) (string, error) {
	t.Helper()
	template, err := Parse(source)
	if err == nil {
		var text string
		if text, err = template.Render(t.Context(), values, noon, limits); err == nil {
			return text, nil
		}
	}
	var e *Error
	if !errors.As(err, &e) || strings.Contains(err.Error(), failed) {
		t.Fatalf("%q: %v, want an *Error of the template's", source[:min(len(source), 200)], err)
	}
	return "", err
}
