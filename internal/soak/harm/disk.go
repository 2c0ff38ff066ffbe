package harm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/kvqbook/kvqbook/internal/hubtest"
	"github.com/kvqbook/kvqbook/internal/soak"
	"github.com/kvqbook/kvqbook/kvq"
)

var disk = soak.Part{
	Name:    "disk",
	Promise: "A full disk, a folder that cannot be written and a HOME that is absent, empty, odd or read-only end in one line, or do no harm.",
	Test:    "`TestQuick/disk` in `internal/soak/harm`, `TestFullDisk` in `hub`",
	Run:     runDisk,
}

func runDisk(ctx context.Context, s *soak.Sitting) error {
	server, stop := startHub()
	defer stop()
	for _, d := range []struct {
		name     string
		kib      int
		readOnly bool
	}{{"full disk", 3 << 10, false}, {"read-only folder", 3 << 10, true}} {
		for s.More("save, "+d.name, soak.Amount{Quick: 1, Full: 10}) {
			if err := onDisk(s, d.kib, d.readOnly, func(dir string) error { return diskSave(s, d.name, dir, d.readOnly) }); err != nil {
				return cannotMount(s, err)
			}
			s.Try("save, " + d.name)
		}
		for s.More("download, "+d.name, soak.Amount{Quick: 1, Full: 10}) {
			if err := onDisk(s, d.kib, d.readOnly, func(dir string) error { return diskDownload(ctx, s, d.name, dir, server) }); err != nil {
				return cannotMount(s, err)
			}
			s.Try("download, " + d.name)
		}
		for s.More("compile cache, "+d.name, soak.Amount{Full: 4}) {
			if err := onDisk(s, 64, d.readOnly, func(dir string) error { return diskCompile(ctx, s, d.name, dir) }); err != nil {
				return cannotMount(s, err)
			}
			s.Try("compile cache, " + d.name)
		}
	}
	if s.Quick {
		return nil
	}
	program, err := program(ctx, s)
	if err != nil || ctx.Err() != nil {
		return err
	}
	model, err := randomModel(s, 32)
	if err != nil {
		return err
	}
	for s.More("homes", soak.Amount{Full: 12}) {
		if err := homes(ctx, s, program, model); err != nil || ctx.Err() != nil {
			return err
		}
	}
	return nil
}

// onDisk calls f with a folder on a disk of its own of so many KiB, which cannot be written to
// where readOnly is set.
func onDisk(s *soak.Sitting, kib int, readOnly bool, f func(dir string) error) (err error) {
	dir, err := os.MkdirTemp(s.Folder(), "disk-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(dir)) }()
	var flags uintptr
	if readOnly {
		flags = syscall.MS_RDONLY
	}
	if err := syscall.Mount("kvq-soak", dir, "tmpfs", flags, fmt.Sprintf("size=%dk", kib)); err != nil {
		return &noMount{err}
	}
	defer func() { err = errors.Join(err, syscall.Unmount(dir, syscall.MNT_DETACH)) }()
	return f(dir)
}

type noMount struct{ error }

// cannotMount makes a note of the error that a machine mounts nothing for this user.
func cannotMount(s *soak.Sitting, err error) error {
	var no *noMount
	if errors.As(err, &no) {
		s.Untried("disks of this size cannot be mounted here (%v)", no)
		return nil
	}
	return err
}

// diskSave saves a cache that does not fit. What was there before stays.
func diskSave(s *soak.Sitting, name, dir string, readOnly bool) error {
	path := filepath.Join(dir, "cache")
	before := []byte("what was there")
	if !readOnly {
		if err := os.WriteFile(path, before, 0o644); err != nil {
			return err
		}
	}
	plan, state, err := emptyCache(1)
	if err != nil {
		return err
	}
	err = kvq.Save(path, plan, state)
	if err == nil || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), dir) {
		s.Fail(nil, "Save on a %s: error %v, want a line with the path", name, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	if want := 1; !readOnly {
		if data, err := os.ReadFile(path); len(entries) != want || err != nil || !bytes.Equal(data, before) {
			s.Fail(nil, "Save on a %s left %v, want the file of before alone (%v)", name, entries, err)
		}
	}
	return nil
}

// diskDownload downloads a model that does not fit.
func diskDownload(ctx context.Context, s *soak.Sitting, name, dir string, server *hubtest.Server) error {
	cmd := s.Child(ctx, "download", server.URL, filepath.Join(dir, "cache"))
	cmd.Env = append(cmd.Env, "HF_TOKEN="+hubToken)
	r, err := run(cmd)
	if err != nil || ctx.Err() != nil {
		return err
	}
	if r.status != 1 || strings.Count(r.stderr, "\n") != 1 || !strings.Contains(r.stderr, dir) {
		s.Fail([]byte(r.String()), "a download to a %s: %s, want one line with the path", name, r)
	}
	return nil
}

// diskCompile compiles with a folder that cannot keep what was compiled.
func diskCompile(ctx context.Context, s *soak.Sitting, name, dir string) error {
	cmd := s.Child(ctx, "compile")
	cmd.Env = append(cmd.Env, "KVQ_COMPILED="+filepath.Join(dir, "compiled"))
	r, err := run(cmd)
	if err != nil || ctx.Err() != nil {
		return err
	}
	_, line, found := strings.Cut(r.stdout, "result ")
	want := s.Kept("compile result")
	if want == "" {
		s.Keep("compile result", line)
		want = line
	}
	if r.status != 0 || !found || line != want {
		s.Fail([]byte(r.String()), "compiling with a %s: %s, want the result %s", name, r, want)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "compiled", "*")); len(left) > 0 {
		s.Fail(nil, "compiling with a %s left %q", name, left)
	}
	return nil
}

// homes generates a few tokens with odd values of HOME. The text is always the same, and standard
// error has nothing of kvq's but how far it is.
func homes(ctx context.Context, s *soak.Sitting, program, model string) error {
	blanks := filepath.Join(s.Folder(), "a home with blanks")
	if err := os.MkdirAll(blanks, 0o755); err != nil {
		return err
	}
	text := ""
	for _, home := range []string{"HOME", "HOME=", "HOME=" + blanks, "HOME=/nonexistent/home", "HOME=/proc"} {
		cmd := exec.CommandContext(ctx, program, "generate", "--model", model, "--max-new-tokens", "4", "--prompt", "hi")
		cmd.Env = environment(home, "XDG_CACHE_HOME", "HF_HOME", "KVQ_COMPILED="+filepath.Join(s.Folder(), "compiled"))
		r, err := run(cmd)
		if err != nil || ctx.Err() != nil {
			return err
		}
		if text == "" {
			text = r.stdout
		}
		if r.status != 0 || r.stdout != text || strings.Contains(r.stderr, "kvq: bug") {
			s.Fail([]byte(r.String()), "generating with %q: %s, want %q", home, r, text)
		}
		s.Try("homes")
	}
	// A model of the hub wants a cache folder in it.
	for _, home := range []string{"HOME", "HOME=/proc"} {
		cmd := exec.CommandContext(ctx, program, "download", "org/name")
		cmd.Env = environment(home, "XDG_CACHE_HOME", "HF_HOME", "HF_HUB_CACHE", "HF_ENDPOINT=http://127.0.0.1:1")
		r, err := run(cmd)
		if err != nil || ctx.Err() != nil {
			return err
		}
		last := r.stderr[strings.LastIndex(strings.TrimSpace(r.stderr), "\n")+1:]
		if r.status < 1 || r.status > 2 || !strings.HasPrefix(last, "kvq: ") {
			s.Fail([]byte(r.String()), "a download with %q: %s, want a line of kvq's", home, r)
		}
		s.Try("homes")
	}
	return nil
}
