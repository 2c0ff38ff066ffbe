package main

import (
	"strings"
	"testing"
)

// Parts of bench growth are put together in the order of their contexts, with the limits that each was measured with; what is no part, or is one of
// another cache, is refused in one line.
func TestGrowthJoin(t *testing.T) {
	part := func(cache, tokens string) string {
		return `{"command":"kvq bench growth --tokens ` + tokens + `","device":"here","cache":"` + cache + `","runs":7,"rows":[{"tokens":` + tokens +
			`,"batch":1,"quantized_ms":2,"full_ms":3}],"weight_bytes":1048576,"limits":[{"quantized_ms":1` + tokens + `,"full_ms":2}]}`
	}
	dir := t.TempDir()
	long, short := write(t, []byte(part("4 bit", "4096")), dir, "long.json"), write(t, []byte(part("4 bit", "512")), dir, "short.json")
	status, out, errs := runKVQ(t, "", "bench", "growth", "--join", long+","+short, "--markdown")
	first, second := strings.Index(out, "| 512 | 1 | 2.00 | 1512.00 |"), strings.Index(out, "| 4096 | 1 | 2.00 | 14096.00 |")
	if status != 0 || errs != "" || first < 0 || second < first || !strings.Contains(out, "`kvq bench growth --tokens 4096`, `kvq bench growth --tokens 512`") {
		t.Errorf("status %d, %q, %s", status, errs, out)
	}
	for _, c := range [][2]string{{part("2 bit", "1024"), "2 bit"}, {"{}", "want what kvq bench growth --json prints"}, {"no", "want what"}} {
		other := write(t, []byte(c[0]), dir, "other.json")
		status, _, errs := runKVQ(t, "", "bench", "growth", "--join", long+","+other)
		if status != 2 || strings.Count(errs, "\n") != 1 || !strings.Contains(errs, c[1]) {
			t.Errorf("%s: status %d, %q", c[0], status, errs)
		}
	}
}
