package setuptest

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// `workbook kernel --user` registers the kernel where other Jupyter programs look, twice is as
// once, and --remove leaves nothing. A kernel of something else is not touched.
func TestRegisterKernel(t *testing.T) {
	clone, _ := bareMachine(t)
	for _, file := range []string{"scripts/workbook", "scripts/kernel.py"} {
		data, err := os.ReadFile(filepath.Join(root(t), file))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(clone, file), data, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// the set-up itself is not tried here
	if err := os.WriteFile(filepath.Join(clone, "scripts", "setup"), []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	data := filepath.Join(home, ".local", "share", "jupyter")
	workbook := func(args ...string) (stdout, stderr string, status int) {
		c := exec.Command(filepath.Join(clone, "scripts", "workbook"), append([]string{"kernel"}, args...)...)
		c.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home}
		return call(t, c)
	}
	file := filepath.Join(data, "kernels", "gonb", "kernel.json")
	for range 2 {
		if stdout, stderr, status := workbook("--user"); status != 0 || stderr != "" || !strings.Contains(stdout, file) {
			t.Fatalf("exit status %d, %q, %q", status, stdout, stderr)
		}
	}
	var k kernel
	text, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(text, &k)
	}
	if err != nil || k.Env["KVQ_ROOT"] == "" || filepath.Base(k.Argv[1]) != "gonb" {
		t.Fatalf("%+v, %v", k, err)
	}
	if stdout, stderr, status := workbook("--remove"); status != 0 || stderr != "" || !strings.Contains(stdout, "removed") {
		t.Errorf("exit status %d, %q, %q", status, stdout, stderr)
	}
	if left, _ := filepath.Glob(filepath.Join(data, "kernels", "*")); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
	if stdout, _, status := workbook("--remove"); status != 0 || !strings.Contains(stdout, "no kernel is at") {
		t.Errorf("removing nothing: exit status %d, %q", status, stdout)
	}
	// another's
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	const others = `{"argv": ["/usr/bin/gonb"], "env": {}}`
	if err := os.WriteFile(file, []byte(others), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, flag := range []string{"--user", "--remove"} {
		if _, stderr, status := workbook(flag); status != 1 || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, "--name NAME") {
			t.Errorf("another's kernel, %s: exit status %d, %q", flag, status, stderr)
		}
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != others {
		t.Errorf("another's kernel is now %q, %v", text, err)
	}
	if stdout, _, status := workbook("--user", "--name", "kvqbook"); status != 0 || !strings.Contains(stdout, "kernels/kvqbook/") {
		t.Errorf("by another name: exit status %d, %q", status, stdout)
	}
	for _, args := range [][]string{{}, {"--users"}, {"--user", "--name", "../x"}, {"--user", "--name"}, {"--name", "x"}} {
		if _, stderr, status := workbook(args...); status != 2 || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%q: exit status %d, %q; want 2 and one line", args, status, stderr)
		}
	}
}
