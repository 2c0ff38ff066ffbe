package progress

import (
	"strings"
	"testing"
	"time"
)

func TestLines(t *testing.T) {
	for _, c := range []struct {
		step time.Duration // between two reports
		want []string
	}{
		{time.Second, []string{"0 B of 2 kB (0 %)", "200 B of 2 kB (10 %)", "400 B of 2 kB (20 %)", "600 B of 2 kB (30 %)", "800 B of 2 kB (40 %)", "1 kB of 2 kB (50 %)",
			"1.2 kB of 2 kB (60 %)", "1.4 kB of 2 kB (70 %)", "1.6 kB of 2 kB (80 %)", "1.8 kB of 2 kB (90 %)", "2 kB of 2 kB (100 %)"}},
		{100 * time.Millisecond, []string{"0 B of 2 kB (0 %)", "1 kB of 2 kB (50 %)", "2 kB of 2 kB (100 %)"}},
		{time.Nanosecond, []string{"0 B of 2 kB (0 %)", "2 kB of 2 kB (100 %)"}},
	} {
		var out strings.Builder
		now := time.Unix(1e9, 0)
		report := lines(&out, "org/model", func() time.Time { return now })
		for done := int64(0); done <= 2000; done += 50 {
			report(done, 2000)
			now = now.Add(c.step)
		}
		want := "fetching org/model: " + strings.Join(c.want, "\nfetching org/model: ") + "\n"
		if out.String() != want {
			t.Errorf("every %v:\n%swant:\n%s", c.step, out.String(), want)
		}
	}
}

func TestBytes(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "1 kB", 134_515_008: "135 MB", 13_476_839_424: "13.5 GB", 9e18: "9e+03 PB"} {
		if got := Bytes(n); got != want {
			t.Errorf("Bytes(%d) = %q, want %q", n, got, want)
		}
	}
}
