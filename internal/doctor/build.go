package doctor

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// oldestGo is the oldest Go that fetches the toolchain which go.mod names.
const oldestGo = "1.26"

// compiler compiles a line of C, with a header that go-xla includes.
func (m *Machine) compiler(ctx context.Context) Finding {
	names := []string{"gcc", "cc"}
	if cc := strings.TrimSpace(os.Getenv("CC")); cc != "" {
		names = []string{cc}
	}
	const cure = "sudo apt-get install gcc libc6-dev, or set CC to a C compiler"
	complaint := ""
	for _, name := range names {
		words := strings.Fields(name) // CC may have flags, as Go takes it
		path, err := exec.LookPath(words[0])
		if err != nil {
			continue
		}
		c := exec.CommandContext(ctx, path, append(words[1:], "-x", "c", "-c", "-o", os.DevNull, "-")...)
		c.Stdin = strings.NewReader("#include <dlfcn.h>\n")
		if out, err := c.CombinedOutput(); err != nil {
			complaint = fmt.Sprintf("%s compiles nothing: %v %s", path, err, firstLine(string(out)))
			continue
		}
		version, _ := exec.CommandContext(ctx, path, "--version").Output()
		return well("%s, %s", path, cmp.Or(firstLine(string(version)), "of unknown version"))
	}
	if complaint != "" {
		return ill(cure, "%s", complaint)
	}
	return ill(cure, "%s not on the PATH", strings.Join(names, " and "))
}

var goVersion = regexp.MustCompile(`go version go(\d+)\.(\d+)\S*`)

// toolchain asks Go for its version, and for the toolchain that the clone wants.
func (m *Machine) toolchain(ctx context.Context) Finding {
	const cure = "install Go " + oldestGo + " or newer from https://go.dev/dl and put its bin folder on the PATH"
	path, err := exec.LookPath("go")
	if err != nil {
		return ill(cure, "go not on the PATH")
	}
	version := func(env ...string) (string, error) {
		c := exec.CommandContext(ctx, path, "version")
		c.Dir, c.Env = os.TempDir(), append(os.Environ(), env...)
		out, err := c.CombinedOutput()
		if err != nil {
			return "", fmt.Errorf("%w: %s", err, firstLine(string(out)))
		}
		return strings.TrimSpace(string(out)), nil
	}
	own, err := version("GOTOOLCHAIN=local")
	if err != nil {
		return ill(cure, "%s does not run: %v", path, err)
	}
	if n := goVersion.FindStringSubmatch(own); n == nil || !atLeast(n[1], n[2], oldestGo) {
		return ill(cure, "%s: %s, want %s or newer", path, own, oldestGo)
	}
	own = strings.TrimPrefix(own, "go version ")
	wanted := m.wantedToolchain()
	if wanted == "" {
		return well("%s, %s", path, own)
	}
	if _, err := version("GOTOOLCHAIN="+wanted, "GOPROXY=off"); err != nil {
		return ill(setup+" fetches it, once, with the network", "%s, %s; its toolchain %s is not on this machine", path, own, wanted)
	}
	return well("%s, %s; toolchain %s", path, own, wanted)
}

// wantedToolchain is the toolchain line of the clone's go.mod.
func (m *Machine) wantedToolchain() string {
	if m.Clone == "" {
		return ""
	}
	f, err := os.Open(filepath.Join(m.Clone, "go.mod"))
	if err != nil {
		return ""
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), "toolchain "); ok {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}

// atLeast compares two numbers of a version with "1.26".
func atLeast(major, minor, want string) bool {
	wantMajor, wantMinor, _ := strings.Cut(want, ".")
	n := func(s string) int { n, _ := strconv.Atoi(s); return n }
	return n(major) > n(wantMajor) || n(major) == n(wantMajor) && n(minor) >= n(wantMinor)
}

// firstLine is the first line of what a program said.
func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return strings.TrimSpace(line)
}
