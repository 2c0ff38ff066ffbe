//go:build unix

package buildcache

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kvqbook/kvqbook/internal/testlane"
	"github.com/kvqbook/kvqbook/internal/trust"
)

// serves makes the test program the cache of a go command that a test starts.
const serves = "KVQ_TEST_BUILDCACHE"

func TestMain(m *testing.M) {
	if shared := os.Getenv(serves); shared != "" {
		own, err := Own()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		cache, err := Open(shared, own, trust.Me().And(0))
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		if err := cache.Serve(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// ask has a cache answer requests, each a line of JSON, some followed by a body.
func ask(t *testing.T, c *Cache, lines ...string) []response {
	t.Helper()
	var out bytes.Buffer
	if err := c.Serve(strings.NewReader(strings.Join(lines, "\n")+"\n"), &out); err != nil {
		t.Fatal(err)
	}
	var replies []response
	for line := range strings.Lines(out.String()) {
		var r response
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		replies = append(replies, r)
	}
	if len(replies) == 0 || replies[0].ID != 0 || strings.Join(replies[0].KnownCommands, " ") != "get put close" {
		t.Fatalf("first comes %+v", replies)
	}
	return replies[1:]
}

func id(text string) []byte { sum := sha256.Sum256([]byte(text)); return sum[:] }

func line(n int, command string, action []byte, body string) string {
	r := map[string]any{"ID": n, "Command": command, "ActionID": action}
	if command == "put" {
		r["OutputID"], r["BodySize"] = id(body), len(body)
	}
	text, _ := json.Marshal(r)
	if body == "" {
		return string(text)
	}
	return string(text) + "\n\"" + base64.StdEncoding.EncodeToString([]byte(body)) + "\""
}

func TestTwoLayers(t *testing.T) {
	shared, own := t.TempDir(), t.TempDir()
	// what the clone's owner built
	if _, err := (layer{shared}).put(id("compile fmt"), id("object"), []byte("object")); err != nil {
		t.Fatal(err)
	}
	before := filesBelow(t, shared)
	c, err := Open(shared, own, trust.Me())
	if err != nil {
		t.Fatal(err)
	}
	got := ask(t, c,
		line(1, "get", id("compile fmt"), ""),
		line(2, "get", id("compile cell"), ""),
		line(3, "put", id("compile cell"), "a cell's object"),
		line(4, "get", id("compile cell"), ""),
		line(5, "put", id("nothing"), ""),
		line(6, "get", id("nothing"), ""),
		line(7, "clear", nil, ""),
		line(8, "close", nil, ""),
		line(9, "get", id("compile fmt"), ""))
	if len(got) != 8 {
		t.Fatalf("%d answers, want 8, none after close: %+v", len(got), got)
	}
	for i, r := range got {
		if r.ID != int64(i+1) {
			t.Errorf("answer %d has ID %d", i, r.ID)
		}
	}
	if r := got[0]; r.Miss || r.Size != 6 || !strings.HasPrefix(r.DiskPath, shared) || !bytes.Equal(r.OutputID, id("object")) {
		t.Errorf("of the shared layer: %+v", r)
	}
	if !got[1].Miss {
		t.Errorf("what nobody built: %+v", got[1])
	}
	if r := got[3]; r.DiskPath != got[2].DiskPath || r.Size != 15 || !strings.HasPrefix(r.DiskPath, own) || r.Time == nil || time.Since(*r.Time) > time.Minute {
		t.Errorf("of one's own layer: %+v", r)
	}
	if content, err := os.ReadFile(got[3].DiskPath); err != nil || string(content) != "a cell's object" {
		t.Errorf("one's own: %q, %v", content, err)
	}
	if r := got[5]; r.Miss || r.Size != 0 || r.DiskPath == "" {
		t.Errorf("an empty output: %+v", r)
	}
	if !strings.Contains(got[6].Err, `"clear"`) {
		t.Errorf("an unknown command: %+v", got[6])
	}
	if after := filesBelow(t, shared); after != before {
		t.Errorf("the shared layer was written: %s, before %s", after, before)
	}
}

func filesBelow(t *testing.T, dir string) string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			names = append(names, strings.TrimPrefix(path, dir))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(names, " ")
}

// What is damaged or does not fit is not there; a body that is not what it says is refused.
func TestDamaged(t *testing.T) {
	l := layer{t.TempDir()}
	action, output := id("action"), id("output")
	path, err := l.put(action, output, []byte("output"))
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := l.get(action); !ok {
		t.Fatal("not there")
	}
	if _, err := l.put(id("other"), output, []byte("outpuT")); err == nil {
		t.Error("a body that is not the output was kept")
	}
	if _, err := l.put(action[:31], output, []byte("output")); err == nil {
		t.Error("a short id was kept")
	}
	if _, ok := l.get(nil); ok {
		t.Error("no id has an output")
	}
	whole, err := os.ReadFile(l.path(action, "a"))
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"empty": "", "cut": string(whole[:40]), "another version": "v2" + string(whole[2:]),
		"another action": "v1 " + fmt.Sprintf("%x", id("other")) + string(whole[3+64:]),
	} {
		if err := os.WriteFile(l.path(action, "a"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, ok := l.get(action); ok {
			t.Errorf("%s: there", name)
		}
	}
	if err := os.WriteFile(l.path(action, "a"), whole, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("outp"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, ok := l.get(action); ok {
		t.Error("an output that was cut is there")
	}
	for _, text := range []string{"no JSON\n", `{"ID":1,"Command":"put","BodySize":3}` + "\n\"QUJ\"", `{"ID":1,"Command":"put","BodySize":3}` + "\nQUJD\n"} {
		if err := (&Cache{own: l}).Serve(strings.NewReader(text), &bytes.Buffer{}); err == nil {
			t.Errorf("%q was understood", text)
		}
	}
}

// A shared folder that others could have written is not read, and the rest works.
func TestUntrusted(t *testing.T) {
	shared := t.TempDir()
	if _, err := (layer{shared}).put(id("a"), id("b"), []byte("b")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(shared, 0o777); err != nil {
		t.Fatal(err)
	}
	c, err := Open(shared, t.TempDir(), trust.Me())
	if err == nil || !strings.Contains(err.Error(), "mode 0777") {
		t.Errorf("%v", err)
	}
	if got := ask(t, c, line(1, "get", id("a"), "")); len(got) != 1 || !got[0].Miss {
		t.Errorf("%+v", got)
	}
	if _, err := Open(filepath.Join(shared, "absent"), t.TempDir(), trust.Me()); err != nil {
		t.Errorf("absent: %v", err)
	}
}

func TestTrim(t *testing.T) {
	l := layer{t.TempDir()}
	for _, name := range []string{"old", "new"} {
		if _, err := l.put(id(name), id(name), []byte(name)); err != nil {
			t.Fatal(err)
		}
	}
	now := time.Now()
	for _, kind := range []string{"a", "d"} {
		if err := os.Chtimes(l.path(id("old"), kind), now, now.Add(-keptFor-time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	l.trim(now)
	_, old := l.get(id("old"))
	_, fresh := l.get(id("new"))
	if old || !fresh {
		t.Errorf("after a trim the old one is there: %v, the new one: %v", old, fresh)
	}
	if _, err := l.put(id("old"), id("old"), []byte("old")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(l.path(id("old"), "d"), now, now.Add(-keptFor-time.Hour)); err != nil {
		t.Fatal(err)
	}
	l.trim(now.Add(time.Hour))
	if _, ok := l.get(id("old")); !ok {
		t.Error("trimmed twice in a day")
	}
}

// An unprivileged user builds with what root built, and without writing there.
func TestAnotherUserBuilds(t *testing.T) {
	testlane.OnlyAll(t, "compiles a part of the standard library")
	if os.Geteuid() != 0 {
		t.Skip("only root can start processes of other users")
	}
	root, err := os.MkdirTemp("", "kvq-buildcache")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(root)
	const user = 54324
	home, shared, module, program := filepath.Join(root, "home"), filepath.Join(root, "shared"), filepath.Join(root, "module"), filepath.Join(root, "cache")
	// A toolchain in root's home is out of their reach.
	var bin string
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		if exec.Command("setpriv", "--reuid", fmt.Sprint(user), "--clear-groups", "test", "-x", filepath.Join(dir, "go")).Run() == nil {
			bin = dir
			break
		}
	}
	if bin == "" {
		t.Skip("other users can run no go on the PATH")
	}
	self, err := os.ReadFile(must(os.Executable())(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{home, shared, module} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for path, content := range map[string]string{program: string(self), filepath.Join(module, "go.mod"): "module m\n", filepath.Join(module, "m.go"): "package m\n\nimport _ \"errors\"\n"} {
		if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(home, user, user); err != nil {
		t.Fatal(err)
	}
	build := func(id uint32, env ...string) string {
		t.Helper()
		c := exec.Command(filepath.Join(bin, "go"), "build", "-x", ".")
		c.Dir = module
		c.Env = append([]string{"PATH=" + bin, "HOME=" + home, "GOTOOLCHAIN=local", "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false"}, env...)
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: id, Gid: id}}
		out, err := c.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return string(out)
	}
	if said := build(0, "GOCACHE="+shared); !strings.Contains(said, "compile -o") {
		t.Fatalf("the first build compiled nothing:\n%s", said)
	}
	before := filesBelow(t, shared)
	mine := []string{serves + "=" + shared, "GOCACHEPROG=" + program}
	if said := build(user, mine...); strings.Contains(said, "compile -o") {
		t.Errorf("another user compiled again:\n%s", said)
	}
	if err := os.WriteFile(filepath.Join(module, "m.go"), []byte("package m\n\nimport _ \"errors\"\n\nconst Changed = 1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if said := build(user, mine...); strings.Count(said, "compile -o") != 1 {
		t.Errorf("a changed package: want one compilation:\n%s", said)
	}
	if said := build(user, mine...); strings.Contains(said, "compile -o") {
		t.Errorf("which is kept in one's own layer:\n%s", said)
	}
	if after := filesBelow(t, shared); after != before {
		t.Error("the shared layer was written")
	}
}

func must(s string, err error) func(*testing.T) string {
	return func(t *testing.T) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
}
