package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/mod/module"
)

// linter checks workflow files without asking anybody; go run fetches it once.
const linter = "github.com/rhysd/actionlint/cmd/actionlint@v1.7.12"

// workflow lints the files of .github/workflows.
func workflow(root string) (string, error) {
	files, err := filepath.Glob(filepath.Join(root, ".github", "workflows", "*.yml"))
	if err != nil || len(files) == 0 {
		return "", fmt.Errorf("no .github/workflows/*.yml (%v)", err)
	}
	c := exec.Command("go", append([]string{"run", linter, "-color=false"}, files...)...)
	c.Dir, c.Env = root, append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off")
	if out, err := c.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s", linter, err, out)
	}
	return fmt.Sprintf("%d files, %s has nothing to say", len(files), linter), nil
}

// depend plays a program of somebody else: a module proxy that has the zip, beside the modules that
// are on this machine, and a module cache of its own. It gets the module, builds and vets the
// packages that can be imported, and installs the command by its version, which a replace in go.mod
// would forbid.
func depend(root, scratch, zip string, m module.Version) (string, error) {
	proxy := filepath.Join(scratch, "proxy")
	if err := serve(proxy, root, zip, m); err != nil {
		return "", err
	}
	cache, err := exec.Command("go", "env", "GOMODCACHE").Output()
	if err != nil {
		return "", err
	}
	program := filepath.Join(scratch, "program")
	bin := filepath.Join(scratch, "bin")
	if err := os.MkdirAll(program, 0o755); err != nil {
		return "", err
	}
	env := append(os.Environ(),
		"GOPROXY=file://"+proxy+",file://"+filepath.Join(strings.TrimSpace(string(cache)), "cache", "download")+",off",
		"GOMODCACHE="+filepath.Join(scratch, "modules"), "GOSUMDB=off", "GOWORK=off", "GOFLAGS=-buildvcs=false", "GOBIN="+bin,
		"GOTOOLCHAIN=local", "PATH="+filepath.Join(runtime.GOROOT(), "bin")+string(filepath.ListSeparator)+os.Getenv("PATH"))
	call := func(args ...string) (string, error) {
		c := exec.Command(args[0], args[1:]...)
		c.Dir, c.Env = program, env
		out, err := c.CombinedOutput()
		if err != nil {
			return "", fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, tail(string(out)))
		}
		return strings.TrimSpace(string(out)), nil
	}
	all, err := list(root)
	if err != nil {
		return "", err
	}
	source := "package main\n\nimport (\n"
	var imported []string
	for _, p := range all {
		if p.Name != "main" {
			source, imported = source+fmt.Sprintf("\t_ %q\n", p.ImportPath), append(imported, p.ImportPath)
		}
	}
	if err := os.WriteFile(filepath.Join(program, "main.go"), []byte(source+")\n\nfunc main() {}\n"), 0o644); err != nil {
		return "", err
	}
	goTool := filepath.Join(runtime.GOROOT(), "bin", "go")
	begin := time.Now()
	for _, args := range [][]string{
		{goTool, "mod", "init", "example.com/program"},
		{goTool, "get", m.Path + "@" + m.Version},
		{goTool, "mod", "tidy"},
		{goTool, "build", "-o", filepath.Join(scratch, "made"), "."},
		append([]string{goTool, "vet", "."}, imported...),
		{goTool, "install", m.Path + "/cmd/kvq@" + m.Version},
	} {
		if _, err := call(args...); err != nil {
			return "", err
		}
	}
	said, err := call(filepath.Join(bin, "kvq"), "version")
	if err != nil {
		return "", err
	}
	if !strings.HasPrefix(said, "kvq "+m.Version) {
		return "", fmt.Errorf("the installed command says %q, want version %s", said, m.Version)
	}
	return fmt.Sprintf("a program that imports %d packages, in %s; installed: %s", len(imported), time.Since(begin).Round(time.Second), said), nil
}

// serve lays out the folder of a module proxy (https://go.dev/ref/mod#goproxy-protocol).
func serve(proxy, root, zip string, m module.Version) error {
	path, err := module.EscapePath(m.Path)
	if err != nil {
		return err
	}
	dir := filepath.Join(proxy, filepath.FromSlash(path), "@v")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		return err
	}
	info := fmt.Sprintf(`{"Version":%q,"Time":%q}`, m.Version, time.Now().UTC().Format(time.RFC3339))
	for name, text := range map[string]string{"list": m.Version + "\n", m.Version + ".info": info, m.Version + ".mod": string(mod)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	in, err := os.Open(zip)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(filepath.Join(dir, m.Version+".zip"))
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return cmp.Or(err, out.Close())
}

// tail is the end of what a program said.
func tail(s string) string {
	const most = 3000
	return s[max(0, len(s)-most):]
}
