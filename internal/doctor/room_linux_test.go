package doctor

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/kvqbook/kvqbook/device"
	"github.com/kvqbook/kvqbook/internal/asset"
)

// disk mounts a disk of so many KiB, of which nothing is left if full.
func disk(t *testing.T, kib string, flags uintptr, full bool) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("kvq-doctor", dir, "tmpfs", flags, "mode=755,size="+kib+"k"); err != nil {
		t.Skipf("nothing can be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	if full {
		f, err := os.Create(filepath.Join(dir, "fills"))
		for err == nil {
			_, err = f.Write(make([]byte, 4096))
		}
		f.Close()
		if !isFull(err) {
			t.Fatalf("filled up with %v", err)
		}
	}
	return dir
}

func TestMemory(t *testing.T) {
	m := surroundings(t)
	for limit, c := range map[int64]struct {
		state State
		says  string
	}{
		0:         {Absent, "cannot be told"},
		300 << 20: {Fails, "300 MiB free (a test), the small model"},
		3 << 30:   {OK, "3.0 GiB free"},
	} {
		m.Memory = func() device.Memory { return device.Memory{Limit: limit, Source: "a test"} }
		want(t, c.says, m.memory(context.Background()), c.state, c.says)
	}
	if here := hostMemory(); here.Limit <= 0 || here.Source == "" {
		t.Errorf("this machine: %+v", here)
	}
}

// A folder that is not there yet is as good as the one above it.
func TestFolder(t *testing.T) {
	dir := t.TempDir()
	look := func(dir string, enough int64) Finding { return folder(dir, enough, "it wants", "full", "closed") }
	want(t, "room", look(filepath.Join(dir, "not", "yet"), 1), OK, " free")
	want(t, "not enough", look(dir, 1<<60), Fails, "it wants 1.0 EiB. Cure: full")
	want(t, "a file", look(put(t, filepath.Join(dir, "file"), "", 0o644), 1), Fails, "cannot be written to")
	want(t, "no disk at all", look("/proc/none", 1), Fails, "Cure: closed")
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestFullDisk(t *testing.T) {
	dir := disk(t, "64", 0, true)
	want(t, "a full disk", folder(dir, 1, "it wants", "full", "closed"), Fails, "is full: ")
	m := surroundings(t)
	t.Setenv(asset.EnvCompiled, dir)
	want(t, "graphs on a full disk", m.compiled(context.Background()), Fails, dir+" is full")
	t.Setenv("TMPDIR", dir)
	want(t, "temporary files on a full disk", m.temporary(context.Background()), Fails, "Cure: make room there, or set TMPDIR")
}

func TestReadOnlyDisk(t *testing.T) {
	dir := disk(t, "64", syscall.MS_RDONLY, false)
	want(t, "a disk that is read only", folder(dir, 1, "it wants", "full", "closed"), Fails, "read-only file system. Cure: closed")
	m := surroundings(t)
	m.Clone = dir
	want(t, "a clone that is read only", m.disk(context.Background()), Fails, "clone to a folder that you can write to")
}

// The clone's disk has to hold set-up, or what comes after it.
func TestDisk(t *testing.T) {
	m := surroundings(t)
	m.Clone = disk(t, "500000", 0, false)
	want(t, "before set-up", m.disk(context.Background()), Fails, "set-up wants 1.0 GiB")
	put(t, filepath.Join(m.Clone, asset.SetupDir, "stamps", "go"), "", 0o644)
	want(t, "after set-up", m.disk(context.Background()), OK, " free")
}

// Who cannot write to a clone that is set up for everybody writes to a folder of their own, which
// has to have room. Its owner writes to the clone, and other clones have no such folder.
func TestSomebodyElsesClone(t *testing.T) {
	m := surroundings(t)
	ctx := context.Background()
	setup := filepath.Join(m.Clone, asset.SetupDir)
	home, data := t.TempDir(), t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("XDG_DATA_HOME", "")
	if err := os.Mkdir(setup, 0o755); err != nil {
		t.Fatal(err)
	}
	if os.Getuid() == 0 { // who may write anywhere but to a disk that is read only
		if err := syscall.Mount(setup, setup, "", syscall.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := syscall.Unmount(setup, syscall.MNT_DETACH); err != nil {
				t.Error(err)
			}
		})
	}
	put(t, filepath.Join(setup, "stamps", "go"), "", 0o644)
	shared := put(t, filepath.Join(setup, "stamps", "shared"), "", 0o644)
	want(t, "one's own, shared", m.disk(ctx), OK, setup+", ")
	lock := func(open bool) {
		t.Helper()
		err := os.Chmod(setup, map[bool]os.FileMode{true: 0o755, false: 0o555}[open])
		if os.Getuid() == 0 {
			err = syscall.Mount("", setup, "", syscall.MS_BIND|syscall.MS_REMOUNT|map[bool]uintptr{false: syscall.MS_RDONLY}[open], "")
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	lock(false)
	defer lock(true)
	want(t, "somebody else's", m.disk(ctx), OK, filepath.Join(home, ".local", "share", "kvqbook")+", ")
	t.Setenv("XDG_DATA_HOME", data)
	want(t, "data elsewhere", m.disk(ctx), OK, filepath.Join(data, "kvqbook")+", ")
	if os.Getuid() == 0 {
		t.Setenv("XDG_DATA_HOME", disk(t, "64", 0, false))
		want(t, "data on a small disk", m.disk(ctx), Fails, "compiled graphs and notebooks want 200 MiB. Cure: make room there")
	}
	t.Setenv("XDG_DATA_HOME", "/proc/none")
	want(t, "data nowhere", m.disk(ctx), Fails, "Cure: set XDG_DATA_HOME to a folder that you can write to")
	lock(true)
	if err := os.Remove(shared); err != nil {
		t.Fatal(err)
	}
	lock(false)
	t.Setenv("XDG_DATA_HOME", data)
	want(t, "set up for its owner alone", m.disk(ctx), Fails, "Cure: clone to a folder that you can write to")
	for _, dir := range []string{home, data} {
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
	}
}

func TestCompiled(t *testing.T) {
	m := surroundings(t)
	ctx := context.Background()
	want(t, "no set-up", m.compiled(ctx), Absent, "no set-up")
	t.Setenv(asset.EnvCompiled, asset.Off)
	want(t, "off", m.compiled(ctx), Absent, "off by KVQ_COMPILED")
	t.Setenv(asset.EnvCompiled, "/proc/none")
	want(t, "a place where nothing can be", m.compiled(ctx), Fails, "/proc/none cannot be written to")
	dir := filepath.Join(t.TempDir(), "compiled")
	t.Setenv(asset.EnvCompiled, dir)
	want(t, "a folder to come", m.compiled(ctx), OK, dir+", not there yet")
	put(t, filepath.Join(dir, "a.xla"), strings.Repeat("x", 2048), 0o644)
	put(t, filepath.Join(dir, "other"), "x", 0o644)
	want(t, "one's own", m.compiled(ctx), OK, dir+" of "+userName(os.Getuid())+", 1 graphs, 2.0 KiB")
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	want(t, "one that all can write", m.compiled(ctx), Fails, "chmod go-w it; every process compiles. Cure: set KVQ_COMPILED")
}
