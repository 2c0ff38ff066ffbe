//go:build unix

package compiled_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/device"
	"github.com/kvqbook/kvqbook/internal/asset"
	"github.com/kvqbook/kvqbook/internal/compiled"
	"github.com/kvqbook/kvqbook/internal/testlane"
)

// Users of the test. None needs a name.
const (
	clones  = 54321 // who made the clone: its plugin and compiled graphs
	reads   = 54322 // who runs programs of the same clone
	strange = 54323
)

// asUser makes the test program run one graph and print what became of it.
const asUser = "KVQ_TEST_AS_USER"

// ran is what one process of a user saw.
type ran struct {
	Loaded, Kept int64
	NotKept      string
	Value        float32
}

// TestAsUser is the process of a user that TestTwoUsers starts.
func TestAsUser(t *testing.T) {
	add := map[string]float64{"one": 1, "two": 2}[os.Getenv(asUser)]
	if add == 0 {
		t.Skip("runs in processes that TestTwoUsers starts")
	}
	compiled.KeepAll(t)
	backend, err := device.Open(device.XLACPU)
	if err != nil {
		t.Fatal(err)
	}
	defer backend.Finalize()
	graph := MustNewExec(backend, func(x *Node) *Node { return ReduceAllSum(AddScalar(x, add)) })
	defer graph.Finalize()
	r := ran{Value: tensors.ToScalar[float32](graph.MustCall([]float32{10, 20, 30})[0])}
	r.Loaded, r.Kept = compiled.Counts()
	if err := device.NotKept(); err != nil {
		r.NotKept = err.Error()
	}
	if err := json.NewEncoder(os.Stdout).Encode(r); err != nil {
		t.Fatal(err)
	}
}

// A clone that two users share, by processes of three real users. The machine code that its owner
// kept is read by another user, who keeps new code in a folder of their own. Nothing runs that
// somebody else could have written: not from a file of another user, not from a folder that others
// can write, not from another user's folder.
func TestTwoUsers(t *testing.T) {
	testlane.Slow(t, "starts twelve processes that load XLA")
	if os.Geteuid() != 0 {
		t.Skip("only root can start processes of other users")
	}
	plugin, err := asset.CPUPlugin()
	if err != nil {
		if os.Getenv("KVQ_REQUIRE_XLA") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	root, err := os.MkdirTemp("", "kvq-two-users")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(root)
	owned := func(user int, path ...string) string {
		t.Helper()
		name := filepath.Join(append([]string{root}, path...)...)
		if err := os.Chown(name, user, user); err != nil {
			t.Fatal(err)
		}
		return name
	}
	folder := func(user int, path ...string) string {
		t.Helper()
		name := filepath.Join(append([]string{root}, path...)...)
		if err := os.MkdirAll(name, 0o755); err != nil {
			t.Fatal(err)
		}
		return owned(user, path...)
	}
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(root, "compiled.test") // go test's own folder is root's alone
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	copyFile(t, self, program, 0o755)
	folder(clones, "clone")
	copyFile(t, plugin, filepath.Join(root, "clone", filepath.Base(plugin)), 0o644)
	shared := owned(clones, "clone", filepath.Base(plugin))
	graphs := filepath.Join(root, "clone", "compiled")
	homes := map[int]string{clones: folder(clones, "home1"), reads: folder(reads, "home2")}
	private := filepath.Join(homes[reads], ".cache", "kvqbook", "compiled")

	run := func(user int, graph string) ran {
		t.Helper()
		c := exec.Command(program, "-test.run", "^TestAsUser$")
		c.Dir = root
		c.Env = []string{asUser + "=" + graph, "HOME=" + homes[user], asset.EnvCPUPlugin + "=" + shared, asset.EnvCompiled + "=" + graphs}
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(user), Gid: uint32(user)}}
		var out, errs bytes.Buffer
		c.Stdout, c.Stderr = &out, &errs
		if err := c.Run(); err != nil {
			if errors.Is(err, fs.ErrPermission) {
				t.Skipf("other users cannot run a program in %s: %v", root, err)
			}
			t.Fatalf("user %d: %v\n%s%s", user, err, out.String(), errs.String())
		}
		var r ran
		if err := json.NewDecoder(&out).Decode(&r); err != nil {
			t.Fatalf("user %d: %v\n%s", user, err, errs.String())
		}
		if want := map[string]float32{"one": 63, "two": 66}[graph]; r.Value != want {
			t.Errorf("user %d: graph %s gives %g, want %g", user, graph, r.Value, want)
		}
		return r
	}
	// want says whether code was loaded and kept, and what the line says ("" for none).
	want := func(what string, got ran, loaded, kept bool, says string) {
		t.Helper()
		if (got.Loaded > 0) != loaded || (got.Kept > 0) != kept || (got.NotKept != "") != (says != "") || !strings.Contains(got.NotKept, says) {
			t.Errorf("%s: %+v, want loaded %v, kept %v, line %q", what, got, loaded, kept, says)
		}
	}

	want("the owner, first", run(clones, "one"), false, true, "")
	want("another user reads what the owner kept", run(reads, "one"), true, false, "")
	ofOwner := filesIn(t, graphs)
	want("another user's new graph", run(reads, "two"), false, true, "")
	if got := filesIn(t, graphs); strings.Join(got, " ") != strings.Join(ofOwner, " ") {
		t.Errorf("the clone's folder holds %q after the other user's graph, want %q", got, ofOwner)
	}
	mine := filesIn(t, private)
	if len(mine) == 0 {
		t.Fatalf("%s holds nothing", private)
	}
	want("another user's graph again", run(reads, "two"), true, false, "")

	// The other user's file, with a right digest, in the place where the owner would look for it.
	for _, name := range mine {
		copyFile(t, filepath.Join(private, name), filepath.Join(graphs, name), 0o644)
		owned(reads, "clone", "compiled", name)
	}
	want("a file of another user in the owner's folder", run(clones, "two"), false, true, "")
	want("which the owner has replaced", run(clones, "two"), true, false, "")
	// A stranger's file is not read by the other user either, who has one's own.
	for _, name := range append(mine, ofOwner...) {
		owned(strange, "clone", "compiled", name)
	}
	want("a stranger's file in the shared clone", run(reads, "one"), false, true, "")

	if err := os.Chmod(graphs, 0o777); err != nil {
		t.Fatal(err)
	}
	want("a folder that all can write", run(clones, "one"), false, false, "chmod go-w")
	if err := os.Chmod(graphs, 0o755); err != nil {
		t.Fatal(err)
	}
	owned(strange, "clone", "compiled")
	want("a stranger's folder", run(reads, "one"), false, false, "belongs to user 54323")
	owned(clones, "clone", "compiled")
	kept := graphs
	graphs, homes[reads] = filepath.Join(root, "clone", "not made yet"), folder(reads, "home3")
	want("a clone whose owner compiled nothing", run(reads, "two"), false, true, "")
	want("and again", run(reads, "two"), true, false, "")
	graphs, homes[reads] = kept, ""
	want("a user without a home reads, and keeps nothing", run(reads, "two"), false, false, "")
}

func filesIn(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func copyFile(t *testing.T, from, to string, mode fs.FileMode) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, mode)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(out, in)
	if closing := out.Close(); err == nil {
		err = closing
	}
	if err != nil {
		t.Fatal(err)
	}
}
