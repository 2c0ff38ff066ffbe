package setuptest

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kvqbook/kvqbook/internal/testlane"
)

// cell is a code cell; Count 0 is one that was not executed.
type cell struct {
	source  string
	meta    map[string]any
	count   int
	outputs []any
}

func allowError(text string) map[string]any {
	return map[string]any{"tags": []string{"allow-error"}, "expect_error": text}
}

// stream is an output of a cell.
func stream(name, text string) any {
	return map[string]any{"output_type": "stream", "name": name, "text": text}
}

// picture is an output with the text that stands for it.
func picture(alt string) any {
	return map[string]any{"output_type": "display_data", "data": map[string]any{"image/png": "AA=="},
		"metadata": map[string]any{"image/png": map[string]any{"alt": alt}}}
}

// notebook writes a notebook file for the given kernel.
func notebook(t *testing.T, dir, name, kernel string, cells ...cell) string {
	t.Helper()
	list := make([]any, 0, len(cells))
	for i, c := range cells {
		if c.meta == nil {
			c.meta = map[string]any{}
		}
		if c.outputs == nil {
			c.outputs = []any{}
		}
		var count any
		if c.count > 0 {
			count = c.count
		}
		list = append(list, map[string]any{"cell_type": "code", "id": fmt.Sprint("c", i), "source": c.source,
			"metadata": c.meta, "execution_count": count, "outputs": c.outputs})
	}
	data, err := json.Marshal(map[string]any{"nbformat": 4, "nbformat_minor": 5, "cells": list, "metadata": map[string]any{
		"kernelspec": map[string]any{"name": kernel, "display_name": kernel, "language": "go"}}})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, name+".ipynb")
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// runner is a call of notebooks/run.py with the Python and the environment of the set-up.
func runner(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	dir := root(t)
	for _, need := range []string{".setup/venv/bin/python", "bin/gonb", "bin/goimports"} {
		if _, err := os.Stat(filepath.Join(dir, need)); err != nil {
			if os.Getenv("KVQ_REQUIRE_XLA") == "1" {
				t.Fatalf("%s is not there; run ./scripts/setup", need)
			}
			t.Skipf("%s is not there; run ./scripts/setup", need)
		}
	}
	script := `source scripts/env.sh; exec "$KVQ_PYTHON" notebooks/run.py "$@"`
	cmd := exec.Command("bash", append([]string{"-c", script, "run"}, args...)...)
	cmd.Dir = dir
	return cmd
}

// The cells that Jupyter takes for good, and those it takes for bad, must fail alike.
func TestRunnerTellsFailures(t *testing.T) {
	testlane.Slow(t, "executes notebooks")
	dir := t.TempDir()
	tests := []struct {
		name string
		cell cell
		want string // in the report of the failure; "" for a cell that is in order
	}{
		{"good", cell{source: "%%\nprintln(6*7)", meta: map[string]any{"expect_output": []string{"42"}}}, ""},
		{"deliberate", cell{source: "%%\npanic(\"on purpose\")", meta: allowError("on purpose")}, ""},
		{"deliberate-shell", cell{source: "!echo wrong flag >&2; exit 2", meta: allowError("wrong flag")}, ""},
		{"panic", cell{source: "%%\npanic(\"by accident\")"}, "by accident"},
		{"compile", cell{source: "%%\nnoSuchName()"}, "noSuchName"},
		{"shell", cell{source: "!exit 4"}, "exit status 4"},
		{"bash", cell{source: "%%bash\nexit 5"}, "exit status 5"},
		{"special", cell{source: "%no_such_command"}, "unknown or not implemented"},
		{"no-error", cell{source: "%%\nprintln(1)", meta: allowError("on purpose")}, "came none"},
		{"other-error", cell{source: "%%\npanic(\"by accident\")", meta: allowError("on purpose")}, "wanted the error 'on purpose'"},
		{"unnamed-error", cell{source: "!exit 1", meta: map[string]any{"tags": []string{"allow-error"}}}, "expect_error"},
		{"other-output", cell{source: "%%\nprintln(6*7)", meta: map[string]any{"expect_output": "43"}}, "wanted the output '43'"},
	}
	args := []string{"--out", filepath.Join(dir, "out")}
	for _, test := range tests {
		args = append(args, notebook(t, dir, test.name, "gonb", cell{source: "%noautoget"}, test.cell))
	}
	stdout, stderr, status := call(t, runner(t, args...))
	if status != 1 {
		t.Errorf("exit status %d, want 1", status)
	}
	reports := map[string]string{} // by notebook: from FAIL to the next one
	for _, part := range strings.Split("\n"+stderr, "\nFAIL ")[1:] {
		name, text, _ := strings.Cut(part, ".ipynb, ")
		reports[name] = text
	}
	for _, test := range tests {
		report, failed := reports[test.name]
		switch {
		case test.want == "" && (failed || !strings.Contains(stdout, "ok   "+test.name+".ipynb")):
			t.Errorf("%s: failed: %s", test.name, report)
		case test.want != "" && !strings.Contains(report, test.want):
			t.Errorf("%s: report %q lacks %q", test.name, report, test.want)
		}
		if _, err := os.Stat(filepath.Join(dir, "out", test.name+".ipynb")); err != nil {
			t.Errorf("%s: no executed copy: %v", test.name, err)
		}
	}
	if t.Failed() {
		t.Logf("standard output:\n%s\nstandard error:\n%s", stdout, stderr)
	}
}

// What --save writes is fit to be committed: no paths of this machine, and the same bytes each
// time.
func TestRunnerSavesNoPaths(t *testing.T) {
	testlane.Slow(t, "executes notebooks")
	path := notebook(t, t.TempDir(), "saved", "gonb",
		cell{source: "%noautoget"},
		cell{source: "!echo \"at $KVQ_ROOT/x, at $GONB_TMP_DIR/main.go\""},
		cell{source: "%%\npanic(\"on purpose\")", meta: allowError("on purpose")})
	var saved [2]string
	for i := range saved {
		if _, stderr, status := call(t, runner(t, "--save", path)); status != 0 {
			t.Fatal(stderr)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		saved[i] = string(data)
	}
	if saved[0] != saved[1] {
		t.Errorf("a second run wrote other bytes:\n%s\nafter\n%s", saved[1], saved[0])
	}
	if !strings.Contains(saved[0], "at $KVQ_ROOT/x, at $GONB_TMP_DIR/main.go") || strings.Contains(saved[0], root(t)) {
		t.Errorf("paths of this machine were saved:\n%s", saved[0])
	}
	if _, stderr, status := call(t, runner(t, "--check", path)); status != 0 {
		t.Errorf("--check refuses what --save wrote: %s", stderr)
	}
}

// Interrupted or killed: the cell does not run on.
func TestEndedRunnerLeavesNothingRunning(t *testing.T) {
	testlane.Slow(t, "executes a notebook")
	t.Run("interrupted", func(t *testing.T) { endRunner(t, syscall.SIGINT, 130) })
	t.Run("killed", func(t *testing.T) { endRunner(t, syscall.SIGKILL, -1) })
}

func endRunner(t *testing.T, signal syscall.Signal, want int) {
	dir := t.TempDir()
	pidFile := filepath.Join(dir, "pid")
	path := notebook(t, dir, "slow", "gonb", cell{source: "%noautoget"},
		cell{source: fmt.Sprintf("!echo $$ >%q.part && mv %q.part %q && exec sleep 300", pidFile, pidFile, pidFile)})
	cmd := runner(t, "--out", filepath.Join(dir, "out"), path)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	var pid int
	for deadline := time.Now().Add(2 * time.Minute); pid == 0; time.Sleep(50 * time.Millisecond) {
		if data, err := os.ReadFile(pidFile); err == nil {
			if pid, err = strconv.Atoi(strings.TrimSpace(string(data))); err != nil {
				t.Fatal(err)
			}
		} else if time.Now().After(deadline) {
			cmd.Process.Kill()
			t.Fatal("the cell did not start")
		}
	}
	if err := cmd.Process.Signal(signal); err != nil {
		t.Fatal(err)
	}
	select {
	case <-done:
	case <-time.After(time.Minute):
		cmd.Process.Kill()
		t.Fatal("did not end")
	}
	if status := cmd.ProcessState.ExitCode(); status != want {
		t.Errorf("exit status %d, want %d", status, want)
	}
	for deadline := time.Now().Add(10 * time.Second); syscall.Kill(pid, 0) == nil; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("process %d of the cell still runs", pid)
		}
	}
}

func TestCheck(t *testing.T) {
	dir := t.TempDir()
	good := func(n int) cell {
		return cell{source: "%%\nprintln(1)", count: n, outputs: []any{stream("stdout", "1\n")}}
	}
	printing := func(text string) cell {
		return cell{source: "%%\nshow()", count: 1, outputs: []any{stream("stdout", text)}}
	}
	for _, test := range []struct {
		name, want string // want "" for a notebook that is in order
		kernel     string
		cells      []cell
	}{
		{"in-order", "", "gonb", []cell{good(1), {source: ""}, good(2)}},
		{"no-outputs", "no cell has an output", "gonb", []cell{{source: "%noautoget", count: 1}}},
		{"not-executed", "executed as number None", "gonb", []cell{good(1), {source: "x := 1"}}},
		{"gap", "executed as number 3", "gonb", []cell{good(1), good(3)}},
		{"other-kernel", `wanted the kernel "gonb"`, "python3", []cell{good(1)}},
		{"failed", "exit status 1", "gonb", []cell{{source: "!false", count: 1, outputs: []any{stream("stderr", "exit status 1\n")}}}},
		{"no-error", "came none", "gonb", []cell{{source: "f()", count: 1, meta: allowError("x"), outputs: []any{stream("stdout", "1\n")}}}},
		{"home", "a path of a home folder", "gonb", []cell{printing("read /home/ann/model.gguf\n")}},
		{"root-home", "a path of a home folder", "gonb", []cell{printing("read /root/model.gguf\n")}},
		{"home-in-source", "its source holds a path of a home folder", "gonb", []cell{{source: "open(\"/home/ann/x\")", count: 1,
			outputs: []any{stream("stdout", "1\n")}}}},
		{"temporary", "a path of a temporary folder", "gonb", []cell{printing("/tmp/gonb_1a2b/main.go:3\n")}},
		{"token", "a token of a hub", "gonb", []cell{printing("hf_" + strings.Repeat("a", 34) + "\n")}},
		{"time", "a time stamp", "gonb", []cell{printing("2026-11-25 02:03:04 loaded\n")}},
		{"log-time", "a time stamp", "gonb", []cell{printing("I1125 02:03:04.123456 loaded\n")}},
		{"bar", "a progress bar", "gonb", []cell{printing("\rloading  50% |#####     |")}},
		{"wide", "a line of code has 89 columns, wanted at most 88", "gonb", []cell{{source: "\t" + strings.Repeat("x", 85), count: 1,
			outputs: []any{stream("stdout", "1\n")}}}},
		{"no-alt", "a picture has no text that stands for it", "gonb", []cell{{source: "x", count: 1, outputs: []any{picture("")}}}},
		{"alt", "", "gonb", []cell{{source: strings.Repeat("é", 88), count: 1, outputs: []any{picture("two lines")}}}},
		{"harmless", "", "gonb", []cell{printing("50 % of the bytes, 3/4, rooted, 12:30, $KVQ_ROOT/bin, https://x.org/home/y\n")}},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := notebook(t, dir, test.name, test.kernel, test.cells...)
			_, stderr, status := call(t, runner(t, "--check", path))
			if test.want == "" && (status != 0 || stderr != "") {
				t.Errorf("exit status %d: %s", status, stderr)
			}
			if test.want != "" && (status != 1 || !strings.Contains(stderr, test.want)) {
				t.Errorf("exit status %d, standard error %q; want 1 and %q", status, stderr, test.want)
			}
		})
	}
}

func TestImports(t *testing.T) {
	path := notebook(t, t.TempDir(), "imports", "gonb",
		cell{source: "import (\n\t\"fmt\"\n\tg \"github.com/gomlx/gomlx/core/graph\"\n\t\"github.com/kvqbook/kvqbook/device\"\n)\n%%\nfmt.Println(\"example.com/not/an/import\")"},
		cell{source: "import \"github.com/janpfeifer/gonb/gonbui\""},
		cell{source: "%%bash\nimport \"example.com/of/another/language\""})
	stdout, stderr, status := call(t, runner(t, "--imports", path))
	want := "github.com/gomlx/gomlx/core/graph\ngithub.com/janpfeifer/gonb/gonbui\n"
	if status != 0 || stdout != want {
		t.Errorf("exit status %d, came %q %s; want %q", status, stdout, stderr, want)
	}
}
