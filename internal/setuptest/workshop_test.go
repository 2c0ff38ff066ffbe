package setuptest

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// python runs a line of Python that can import from a folder of the clone.
func python(t *testing.T, folder, line string) string {
	t.Helper()
	c := exec.Command("python3", "-c", "import sys; sys.path.insert(0, sys.argv[1]); "+line, filepath.Join(root(t), folder))
	c.Env = append(os.Environ(), "KVQ_ROOT="+root(t), "PYTHONDONTWRITEBYTECODE=1")
	stdout, stderr, status := call(t, c)
	if status != 0 {
		t.Fatalf("%s: %s", line, stderr)
	}
	return strings.TrimSpace(stdout)
}

// A text that parts from a lone client's counts as right only where two tokens are nearly as
// likely.
func TestVerdictOfTexts(t *testing.T) {
	for _, c := range []struct{ alone, together, gaps, says string }{
		{"['a','b']", "['a','b']", "[1, 1]", "None"},
		{"['a','b','c']", "['a','x','y']", "[1, 5e-5, 1]", "None"},
		{"['a','b','c']", "['a','x','y']", "[1e-5, 2e-4, 1e-5]", "token 1 is 'x', alone 'b', and the two best are 0.0002 apart"},
		{"['a','b']", "['a']", "[1, 1]", "1 tokens, alone 2"},
	} {
		if got := python(t, "scripts/workshop", "import ask; print(ask.verdict(('', "+c.alone+", "+c.gaps+"), ('', "+c.together+", "+c.gaps+")))"); got != c.says {
			t.Errorf("%s and %s: %q, want %q", c.alone, c.together, got, c.says)
		}
	}
}

// The steps of a target are those of the images that it builds on, then its own.
func TestStepsOfADockerfile(t *testing.T) {
	const file = `FROM debian:12 AS one
# a comment
RUN a \
    && b
FROM one AS two
USER x
CMD ["y"]
FROM other
RUN c`
	path := filepath.Join(t.TempDir(), "Dockerfile")
	if err := os.WriteFile(path, []byte(file), 0o644); err != nil {
		t.Fatal(err)
	}
	steps := func(file, target string) (string, int) {
		stdout, stderr, status := call(t, exec.Command("python3", filepath.Join(root(t), "scripts", "dockerfile.py"), file, target))
		return stdout + stderr, status
	}
	if got, status := steps(path, "two"); status != 0 || got != "FROM debian:12\nRUN a && b\nUSER x\n" {
		t.Errorf("%q", got)
	}
	if got, status := steps(path, "three"); status != 1 || strings.Count(got, "\n") != 1 || !strings.Contains(got, "wanted one of one, two, other") {
		t.Errorf("exit status %d, %q", status, got)
	}
	// Binder wants a file of its own: the same machine.
	ours := filepath.Join(root(t), "Dockerfile")
	machine, _ := steps(ours, "machine")
	binder, status := steps(filepath.Join(root(t), "binder", "Dockerfile"), "debian:12-slim")
	machine, _, _ = strings.Cut(machine, "RUN useradd")
	if status != 0 || !strings.HasPrefix(binder, machine) || !strings.Contains(machine, "RUN apt-get") {
		t.Errorf("binder's steps %q do not begin with the machine's, %q", binder, machine)
	}
	for target, want := range map[string]string{"cpu": "RUN ./scripts/setup\n", "cuda": "RUN ./scripts/setup --cuda\n", "singleuser": "RUN ./scripts/setup --hub\nUSER reader\n"} {
		if got, status := steps(ours, target); status != 0 || !strings.HasSuffix(got, want) {
			t.Errorf("%s: %q, want %q at the end", target, got, want)
		}
	}
	data, err := os.ReadFile(filepath.Join(root(t), ".devcontainer", "devcontainer.json"))
	if err != nil {
		t.Fatal(err)
	}
	var container struct {
		Build      struct{ Dockerfile, Context, Target string }
		RemoteUser string
	}
	if err := json.Unmarshal(data, &container); err != nil {
		t.Fatal(err)
	}
	if got, status := steps(filepath.Join(root(t), ".devcontainer", container.Build.Dockerfile), container.Build.Target); status != 0 || !strings.Contains(got, "useradd --create-home "+container.RemoteUser) {
		t.Errorf("the dev container's target: %q", got)
	}
}

// The load test puts the answers of notebooks/solutions into the exercises of the notebook: all of
// them, and they are no longer the reader's turn.
func TestAnswersForTheLoadTest(t *testing.T) {
	text := `
import exercises as load
path = load.ROOT / "notebooks" / "01-kv-cache-quantization.ipynb"
for solved in (False, True):
    cells = load.cells_of(path, solved)
    print(sum("// your turn" in c["source"] for c in cells), sum(c["metadata"].get("expect_output") == "right" for c in cells))
print(sum(load.generates(c) for c in cells) > 0)`
	got := python(t, "scripts/workshop", "exec("+quoted(text)+")")
	if got != "4 0\n0 4\nTrue" {
		t.Errorf("cells that are the reader's turn and cells that have to be right: %q", got)
	}
}

func quoted(text string) string {
	data, _ := json.Marshal(text)
	return string(data)
}

// What cannot be packed is said in one line, before anything is made.
func TestPackArguments(t *testing.T) {
	for _, c := range []struct {
		args   []string
		status int
		says   string
	}{
		{[]string{"--put"}, 2, `wanted --out FILE, came "--put"`},
		{[]string{"--out"}, 2, "wanted --out FILE"},
		{[]string{"--out", "/kvq-no-such-folder/x.tar.gz"}, 1, "no file can be written there"},
		{[]string{"--out", t.TempDir()}, 1, "no file can be written there"},
	} {
		stdout, stderr, status := call(t, exec.Command(filepath.Join(root(t), "scripts", "workbook"), append([]string{"pack"}, c.args...)...))
		if status != c.status || stdout != "" || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, c.says) {
			t.Errorf("%q: exit status %d, %q, %q; want %d and %q", c.args, status, stdout, stderr, c.status, c.says)
		}
	}
}

// With one password for all, a name is taken for a participant's only where its account is new or
// one of the workshop's: nobody becomes root, or another user of the machine.
func TestWhoMayLogIn(t *testing.T) {
	text := `
import os, pathlib, sys, tempfile, types
folder = tempfile.mkdtemp(); open(folder + "/password", "w").write("secret-enough\n")
os.environ["KVQ_HUB_STATE"] = folder
class Any:
    def __getattr__(self, name): self.__dict__[name] = Any(); return self.__dict__[name]
spawner = types.ModuleType("jupyterhub.spawner"); spawner.LocalProcessSpawner = object
limits = types.ModuleType("limits"); limits.Groups = types.SimpleNamespace(here=lambda name: None)
sys.modules.update({"jupyterhub": types.ModuleType("jupyterhub"), "jupyterhub.spawner": spawner, "limits": limits})
c = Any()
path = sys.argv[1] + "/jupyterhub_config.py"
config = {"get_config": lambda: c, "__file__": path, "__name__": "config"}
exec(compile(open(path).read(), path, "exec"), config)
made = []
users = {"root": (0, 0), "daemon": (1, 1), "colleague": (1001, 1001), "ada": (1002, 700), "trap": (5, 700)}
def getpwnam(name):
    uid, gid = users[name]
    return types.SimpleNamespace(pw_uid=uid, pw_gid=gid)
config["pwd"] = types.SimpleNamespace(getpwnam=getpwnam)
config["grp"] = types.SimpleNamespace(getgrnam=lambda name: types.SimpleNamespace(gr_gid=700))
config["subprocess"] = types.SimpleNamespace(run=lambda command, check: made.append(command[-1]))
for name in ("root", "daemon", "colleague", "trap", "ada", "new-one", "-x", "a b", "Ada", "x" * 40):
    try:
        config["account"](types.SimpleNamespace(user=types.SimpleNamespace(name=name)))
        print(name[:9], "in")
    except (PermissionError, ValueError) as error:
        print(name[:9], "out")
print(*made, c.SharedPasswordAuthenticator.user_password, c.Spawner.pre_spawn_hook.__name__)`
	got := python(t, "scripts/workshop", "exec("+quoted(text)+")")
	want := "root out\ndaemon out\ncolleague out\ntrap out\nada in\nnew-one in\n-x out\na b out\nAda out\nxxxxxxxxx out\nnew-one secret-enough account"
	if got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// A participant's group says what is allowed in the files that each version of control groups has,
// in the hub's own place, and in no hierarchy that is not mounted or holds other things.
func TestControlGroups(t *testing.T) {
	text := `
import pathlib, sys, tempfile
import limits
for version, mounts, places in (
    (1, "35 31 0:32 / {0}/memory rw - cgroup cgroup rw,memory\n32 31 0:29 /outer {0}/cpu rw shared:3 - cgroup cgroup rw,cpu,cpuacct\n"
        "40 31 0:37 / {0}/systemd rw - cgroup cgroup rw,name=systemd\n1 0 0:1 / / rw - ext4 /dev/vda rw\n",
        "5:memory:/own\n4:cpu,cpuacct:/outer/own\n3:pids:/\n1:name=systemd:/\n0::/\n"),
    (2, "30 23 0:26 / {0} rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n", "0::/own\n"),
):
    root = pathlib.Path(tempfile.mkdtemp())
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/mountinfo").write_text(mounts.format(root))
    (root / "proc/self/cgroup").write_text(places)
    for folder in ("own", "memory/own/hub/ada", "cpu/own"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    if version == 1:
        (root / "memory/own/hub/ada/memory.memsw.limit_in_bytes").touch()
    (root / "own/cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    groups = limits.Groups.here("hub", root / "proc")
    groups.limit("ada", 4 << 30, 1.5, 4096)
    groups.enter("ada")
    print(version, *sorted(groups.controllers))
    for file in sorted(root.rglob("*")):
        if file.is_file() and "proc" not in file.relative_to(root).parts and file.name != "cgroup.controllers":
            print(file.relative_to(root), file.read_text())
    empty = root / "proc/self/mountinfo"
    empty.write_text("1 0 0:1 / / rw - ext4 /dev/vda rw\n")
    print(limits.Groups.here("hub", root / "proc"))`
	want := `1 cpu memory
cpu/own/hub/ada/cgroup.procs 0
cpu/own/hub/ada/cpu.cfs_period_us 100000
cpu/own/hub/ada/cpu.cfs_quota_us 150000
cpu/own/hub/cpu.shares 10240
memory/own/hub/ada/cgroup.procs 0
memory/own/hub/ada/memory.limit_in_bytes 4294967296
memory/own/hub/ada/memory.memsw.limit_in_bytes 4294967296
None
2 cpu memory pids
own/cgroup.subtree_control +memory +cpu +pids
own/hub/ada/cgroup.procs 0
own/hub/ada/cpu.max 150000 100000
own/hub/ada/memory.max 4294967296
own/hub/ada/pids.max 4096
own/hub/cgroup.subtree_control +memory +cpu +pids
own/hub/cpu.weight 1000
None`
	if got := python(t, "scripts/workshop", "exec("+quoted(text)+")"); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}
