package jinja

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Whatever a template is, it ends soon, with a text within the bounds or with a line that is an
// *Error.
func FuzzTemplate(f *testing.F) {
	g := readGoldens(f, filepath.Join("testdata", "templates.json.gz"))
	for _, source := range g.Templates {
		f.Add(source)
	}
	for _, source := range hostile {
		if len(source) < 1000 {
			f.Add(source)
		}
	}
	variables := ordered(f, g.Variables["constructs"]).(Dict)
	messages := ordered(f, g.Conversations["talk"])
	f.Fuzz(func(t *testing.T, source string) {
		start := time.Now()
		template, err := Parse(source)
		text := ""
		if err == nil {
			text, err = template.Render(t.Context(), withDefaults(messages, true, variables), noon, Limits{Work: 300_000})
		}
		var e *Error
		if err != nil && (!errors.As(err, &e) || strings.ContainsAny(err.Error(), "\n\r") || strings.Contains(err.Error(), failed)) {
			t.Errorf("error %q, want one line that is an *Error of the template's", err)
		}
		if took := time.Since(start); took > 20*time.Second { // a loaded machine's
			t.Errorf("took %v", took)
		}
		if len(text) > 1<<20 {
			t.Errorf("%d bytes", len(text))
		}
	})
}
