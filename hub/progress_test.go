package hub

import (
	"strings"
	"testing"
)

func TestLines(t *testing.T) {
	var out strings.Builder
	report := Lines(&out, "org/model")
	for done := int64(0); done <= 2000; done += 50 {
		report(Progress{Done: done, Total: 2000})
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 11 || lines[0] != "fetching org/model: 0 B of 2 kB (0 %)" || lines[10] != "fetching org/model: 2 kB of 2 kB (100 %)" {
		t.Errorf("%d lines: %q", len(lines), lines)
	}
}

func TestBytes(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "1 kB", 134_515_008: "135 MB", 13_476_839_424: "13.5 GB", 9e18: "9e+03 PB"} {
		if got := Bytes(n); got != want {
			t.Errorf("Bytes(%d) = %q, want %q", n, got, want)
		}
	}
}
