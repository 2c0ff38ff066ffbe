package setuptest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// `workbook check` calls kvq doctor, sets nothing up, and says something where there is no kvq and
// none can be built.
func TestWorkbookCheck(t *testing.T) {
	clone, path := bareMachine(t)
	script := filepath.Join(clone, "scripts", "workbook")
	data, err := os.ReadFile(filepath.Join(root(t), "scripts", "workbook"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(script, data, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"mktemp", "rm"} {
		real, err := exec.LookPath(name)
		if err != nil {
			t.Skipf("this machine lacks %s", name)
		}
		if err := os.Symlink(real, filepath.Join(path, name)); err != nil {
			t.Fatal(err)
		}
	}
	check := func(args ...string) (stdout, stderr string, status int) {
		cmd := exec.Command(script, append([]string{"check"}, args...)...)
		cmd.Env = []string{"PATH=" + path, "HOME=" + t.TempDir()}
		return call(t, cmd)
	}
	stdout, stderr, status := check()
	if status != 1 || !strings.HasPrefix(stdout, "[fails]") || strings.Count(stdout, "\n") != 1 || !strings.Contains(stdout, "Cure: ./scripts/setup") {
		t.Errorf("without Go: exit status %d, %q, %q; want 1 and one line", status, stdout, stderr)
	}
	if err := os.Mkdir(filepath.Join(clone, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	kvq := filepath.Join(clone, "bin", "kvq")
	if err := os.WriteFile(kvq, []byte("#!/bin/sh\necho \"$KVQ_ROOT: $*\"\nexit 3\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]string{"": ": doctor\n", "--json": ": doctor --json\n"} {
		if stdout, stderr, status := check(strings.Fields(args)...); status != 3 || !strings.HasSuffix(stdout, want) || stderr != "" {
			t.Errorf("check %s: exit status %d, %q, %q; want 3 and %q", args, status, stdout, stderr, want)
		}
	}
	if _, err := os.Stat(filepath.Join(clone, ".setup")); err == nil {
		t.Error("it set something up")
	}
}
