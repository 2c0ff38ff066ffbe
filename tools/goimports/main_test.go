package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRun(t *testing.T) {
	for _, test := range []struct {
		name, source string
		want, not    []string // in what is written
	}{
		{"right name", "package main\n\nfunc main() { fmt.Println(1) }\n", []string{`import "fmt"`}, nil},
		{"wrong name", "package main\n\nfunc main() { fmt.Printl(1) }\n", []string{`import "fmt"`}, nil},
		{"wrong and right", "package main\n\nfunc main() { fmt.Printl(strings.ToUpper(\"a\"), math.Sqr(2)) }\n", []string{`"fmt"`, `"strings"`, `"math"`}, nil},
		{"imported and not used", "package main\n\nimport \"os\"\n\nfunc main() { fmt.Printl(1) }\n", []string{`"fmt"`}, []string{`"os"`}},
		{"imported and wrong", "package main\n\nimport \"os\"\n\nfunc main() { os.Exitt(1) }\n", []string{`"os"`}, nil},
		{"two of a name", "package main\n\nfunc main() { rand.Intt(1); template.Neww(2) }\n", []string{`"math/rand"`, `"text/template"`}, []string{"crypto", "html"}},
		{"a variable", "package main\n\nfunc main() { var fmt struct{ x int }; fmt.x++ }\n", nil, []string{"import"}},
		{"no such package", "package main\n\nfunc main() { fmtt.Println(1) }\n", nil, []string{"import"}},
		{"a major version", "package main\n\nimport \"math/rand/v2\"\n\nfunc main() { rand.Innt() }\n", []string{`"math/rand/v2"`}, []string{`"math/rand"`}},
	} {
		t.Run(test.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "main.go")
			if err := os.WriteFile(file, []byte(test.source), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := run(file); err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range test.want {
				if !strings.Contains(string(got), want) {
					t.Errorf("lacks %s:\n%s", want, got)
				}
			}
			for _, not := range test.not {
				if strings.Contains(string(got), not) {
					t.Errorf("has %s:\n%s", not, got)
				}
			}
			before := string(got)
			if err := run(file); err != nil {
				t.Fatal(err)
			}
			if got, _ = os.ReadFile(file); string(got) != before {
				t.Errorf("a second call changes it:\n%s", got)
			}
		})
	}
}

func TestSyntaxError(t *testing.T) {
	file := filepath.Join(t.TempDir(), "main.go")
	if err := os.WriteFile(file, []byte("package main\n\nfunc main() {\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := run(file); err == nil || !strings.Contains(err.Error(), "main.go:4:1") && !strings.Contains(err.Error(), "main.go:3") {
		t.Errorf("%v", err)
	}
}
