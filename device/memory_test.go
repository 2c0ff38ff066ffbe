package device

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// root makes a folder with files of the system.
func root(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestHostMemory(t *testing.T) {
	const mi = 1 << 20
	base := map[string]string{
		"proc/meminfo":     "MemTotal:       25000000 kB\nMemFree:         1000000 kB\nMemAvailable:    2097152 kB\n",
		"proc/self/status": "Name:\tkvq\nVmHWM:\t  204800 kB\nVmRSS:\t  102400 kB\n",
	}
	for _, c := range []struct {
		name   string
		more   map[string]string
		limit  int64
		source string
	}{
		{"machine", nil, 2148 * mi, "MemAvailable"},
		{"no limit", map[string]string{"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.max": "max\n", "sys/fs/cgroup/a/memory.current": "5\n"},
			2148 * mi, "MemAvailable"},
		// 1 GiB, 600 MiB used, of which 100 MiB are files: 524 MiB are left.
		{"version 2", map[string]string{"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/memory.max": "1073741824\n", "sys/fs/cgroup/a/memory.current": "629145600\n",
			"sys/fs/cgroup/a/memory.stat": "anon 1\ninactive_file 104857600\n"}, 624 * mi, "control group"},
		{"version 1", map[string]string{"proc/self/cgroup": "3:cpu,memory:/host/path\n2:cpuset:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "1073741824\n",
			"sys/fs/cgroup/memory/memory.usage_in_bytes": "1073741824\n", "sys/fs/cgroup/memory/memory.stat": "total_inactive_file 0\n"}, 100 * mi, "control group"},
	} {
		files := map[string]string{}
		for _, m := range []map[string]string{base, c.more} {
			for k, v := range m {
				files[k] = v
			}
		}
		m := hostMemory(root(t, files))
		if m.Limit != c.limit || m.InUse != 100*mi || m.Peak != 200*mi || !strings.Contains(m.Source, c.source) {
			t.Errorf("%s: %+v, want a limit of %d from %s", c.name, m, c.limit, c.source)
		}
	}
	if m := hostMemory(root(t, nil)); m != (Memory{}) {
		t.Errorf("nothing known, but %+v", m)
	}
}
