package benchcmd

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/kvqbook/kvqbook/internal/usererr"
)

// run runs a command line of kvq bench.
func run(args ...string) (out, errs string, err error) {
	root := &cobra.Command{Use: "kvq", SilenceErrors: true, SilenceUsage: true}
	root.AddCommand(New())
	var stdout, stderr bytes.Buffer
	root.SetOut(&stdout)
	root.SetErr(&stderr)
	root.SetArgs(append([]string{"bench"}, args...))
	err = root.Execute()
	return stdout.String(), stderr.String(), err
}

// Parts of bench growth are put together in the order of their contexts, with the limits that each
// was measured with. What is no part, or is one of another cache, is refused in one line.
func TestGrowthJoin(t *testing.T) {
	part := func(cache, tokens string) string {
		return `{"command":"kvq bench growth --tokens ` + tokens + `","device":"here","cache":"` + cache + `","runs":7,"rows":[{"tokens":` + tokens +
			`,"batch":1,"quantized_ms":2,"full_ms":3}],"weight_bytes":1048576,"limits":[{"quantized_ms":1` + tokens + `,"full_ms":2}]}`
	}
	dir := t.TempDir()
	write := func(text, name string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	long, short := write(part("4 bit", "4096"), "long.json"), write(part("4 bit", "512"), "short.json")
	out, errs, err := run("growth", "--join", long+","+short, "--markdown")
	first, second := strings.Index(out, "| 512 | 1 | 2.00 | 1512.00 |"), strings.Index(out, "| 4096 | 1 | 2.00 | 14096.00 |")
	if err != nil || errs != "" || first < 0 || second < first || !strings.Contains(out, "`kvq bench growth --tokens 4096`, `kvq bench growth --tokens 512`") {
		t.Errorf("%v, %q, %s", err, errs, out)
	}
	for _, c := range [][2]string{{part("2 bit", "1024"), "2 bit"}, {"{}", "want what kvq bench growth --json prints"}, {"no", "want what"}} {
		other := write(c[0], "other.json")
		_, errs, err := run("growth", "--join", long+","+other)
		if !usererr.Is(err) || errs != "" || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), c[1]) {
			t.Errorf("%s: %v, %q", c[0], err, errs)
		}
	}
}
