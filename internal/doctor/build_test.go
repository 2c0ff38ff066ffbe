package doctor

import (
	"context"
	"os"
	"os/exec"
	"testing"
)

func TestCompiler(t *testing.T) {
	path := os.Getenv("PATH")
	real, err := exec.LookPath("gcc")
	m := surroundings(t)
	want(t, "an empty PATH", m.compiler(context.Background()), Fails, "gcc and cc not on the PATH. Cure: sudo apt-get install gcc")
	broken := program(t, "cc", `echo "dlfcn.h: No such file" >&2; exit 1`)
	want(t, "a compiler without headers", m.compiler(context.Background()), Fails, broken+" compiles nothing: exit status 1 dlfcn.h: No such file")
	t.Setenv("CC", "clang-99 -m64")
	want(t, "$CC that is not there", m.compiler(context.Background()), Fails, "clang-99 -m64 not on the PATH")
	if err != nil {
		t.Skip("no gcc to find")
	}
	t.Setenv("PATH", path)
	t.Setenv("CC", real+" -m64")
	want(t, "$CC with a flag", m.compiler(context.Background()), OK, real)
}

func TestToolchain(t *testing.T) {
	m := surroundings(t)
	want(t, "an empty PATH", m.toolchain(context.Background()), Fails, "go not on the PATH. Cure: install Go 1.26")
	for version, c := range map[string]struct {
		state State
		says  string
	}{
		"1.21.3": {Fails, "want 1.26 or newer"},
		"1.26.8": {Fails, "toolchain go1.99.9 is not on this machine. Cure: ./scripts/setup fetches it"},
		"2.0":    {Fails, "go1.99.9"},
		"devel":  {Fails, "want 1.26"},
	} {
		program(t, "go", "v="+version+"\n"+`[ "$GOTOOLCHAIN" = local ] && { echo "go version go$v linux/amd64"; exit 0; }`+"\n"+
			`[ "$GOPROXY" = off ] || echo asked the network; echo "toolchain not available" >&2; exit 1`)
		want(t, version, m.toolchain(context.Background()), c.state, c.says)
	}
	program(t, "go", `echo "go version go1.26.8 linux/amd64"`)
	want(t, "all there", m.toolchain(context.Background()), OK, "toolchain go1.99.9")
	m.Clone = ""
	want(t, "no clone", m.toolchain(context.Background()), OK, "go1.26.8")
	program(t, "go", `echo "exec format error" >&2; exit 126`)
	want(t, "one that does not run", m.toolchain(context.Background()), Fails, "exit status 126: exec format error")
}
