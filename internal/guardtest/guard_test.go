package guardtest

import (
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kvqbook/kvqbook/internal/private"
	"github.com/kvqbook/kvqbook/internal/testbackend"
	"github.com/kvqbook/kvqbook/internal/testlane"
)

// folders are those of the packages in their modules.
var folders = map[string]string{"graph": "core/graph", "xla": "compute/xla", "pjrt": "pjrt"}

// always are the fields that every lane but the quick one renames, one of each module. The others
// wait for --all; that each of them is missed is shown by TestEveryField of package private.
var always = map[*private.Field]bool{private.GraphScalars: true, private.FunctionProgram: true}

// A program that is built with a module in which one field has another name says so in one line,
// when it asks and at its first graph, and goes no further.
func TestRenamedField(t *testing.T) {
	testlane.Slow(t, "builds a program with a patched copy of each module")
	testbackend.XLA(t) // skips where there is none
	for _, f := range private.Fields() {
		if token.IsExported(f.Name) {
			continue // no patch release renames it, and other packages use it
		}
		t.Run(f.String(), func(t *testing.T) {
			if !always[f] {
				testlane.OnlyAll(t, "a build for each field; the table is checked in every lane")
			}
			dir := copyModule(t, f.Module)
			pkg, owner, _ := strings.Cut(f.Owner, ".")
			if err := renameField(f.Module+"/"+folders[pkg], filepath.Join(dir, folders[pkg]), owner, f.Name, f.Name+"Moved"); err != nil {
				t.Fatal(err)
			}
			lines := run(t, build(t, f.Module, dir))
			for _, what := range says(f) {
				line := lines[what]
				for _, want := range []string{
					"kvqbook needs " + private.GoMLX + " " + private.TestedGoMLX + " and " + private.GoXLA + " " + private.TestedGoXLA,
					" replaced by " + dir,
					"field " + f.String() + ", for " + f.For + ", is not there",
					"go get " + private.GoMLX + "@" + private.TestedGoMLX + " " + private.GoXLA + "@" + private.TestedGoXLA,
				} {
					if !strings.Contains(line, want) {
						t.Errorf("%s: %q, want %q in it", what, line, want)
					}
				}
			}
		})
	}
}

// The same program with the modules as they are: nothing is wrong, and its other answers are right.
func TestTestedModules(t *testing.T) {
	testlane.Slow(t, "builds a program")
	testbackend.XLA(t)
	lines := run(t, build(t, "", ""))
	for what, want := range map[string]string{"supported": "<nil>", "platform": "cpu", "graph": "<nil>", "figures": "<nil>"} {
		if lines[what] != want {
			t.Errorf("%s: %q, want %q", what, lines[what], want)
		}
	}
}

// says lists the lines of the program that have to tell of a field.
func says(f *private.Field) []string {
	if f.Owner == "xla.Executable" { // known only when a graph is compiled
		return []string{"figures"}
	}
	return []string{"supported", "graph"}
}

// copyModule copies what is built of a module from the module cache, writable.
func copyModule(t *testing.T, module string) string {
	t.Helper()
	out, err := goTool("list", "-m", "-f", "{{.Dir}}", module)
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	from, to := strings.TrimSpace(out), t.TempDir()
	err = filepath.WalkDir(from, func(path string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		switch {
		case entry.IsDir() && (name == "examples" || name == "docs" || name == "ui"):
			return filepath.SkipDir
		case entry.IsDir():
			return os.MkdirAll(filepath.Join(to, name), 0o755)
		case strings.HasSuffix(name, "_test.go"):
			return nil
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, name), content, 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
	return to
}

// build builds the program with a module replaced by a folder, or with none replaced.
func build(t *testing.T, module, dir string) (program string) {
	t.Helper()
	scratch := t.TempDir()
	for _, name := range []string{"go.mod", "go.sum"} {
		content, err := os.ReadFile(filepath.Join("..", "..", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(scratch, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	mod := filepath.Join(scratch, "go.mod")
	if module != "" {
		if out, err := goTool("mod", "edit", "-replace", module+"="+dir, mod); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	program = filepath.Join(scratch, "program")
	start := time.Now()
	if out, err := goTool("build", "-modfile", mod, "-o", program, "./program"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Logf("built in %.1f s", time.Since(start).Seconds())
	return program
}

func goTool(args ...string) (string, error) {
	command := exec.Command("go", args...)
	command.Env = append(os.Environ(), "GOPROXY=off", "GOWORK=off")
	out, err := command.CombinedOutput()
	return string(out), err
}

// run runs the program and returns its lines by their first words.
func run(t *testing.T, program string) map[string]string {
	t.Helper()
	out, err := exec.Command(program).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	lines := map[string]string{}
	for line := range strings.Lines(string(out)) {
		what, rest, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		if !ok {
			t.Errorf("%q is not a line of the program: an error of several lines?", line)
		}
		lines[what] = rest
	}
	return lines
}
