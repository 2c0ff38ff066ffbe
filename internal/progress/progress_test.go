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

// A download that is slow says so every ten seconds.
func TestLinesOfASlowDownload(t *testing.T) {
	var out strings.Builder
	now := time.Unix(1e9, 0)
	report := lines(&out, "org/model", func() time.Time { return now })
	for done := range int64(26) { // a byte a second, of 1000
		report(done, 1000)
		now = now.Add(time.Second)
	}
	want := "fetching org/model: 0 B of 1 kB (0 %)\nfetching org/model: 10 B of 1 kB (1 %)\nfetching org/model: 20 B of 1 kB (2 %)\n"
	if out.String() != want {
		t.Errorf("%s, want\n%s", out.String(), want)
	}
}

// What an earlier download left does not count for the speed.
func TestRate(t *testing.T) {
	now := time.Unix(1e9, 0)
	r := NewRate(func() time.Time { return now })
	for _, c := range []struct {
		wait time.Duration
		done int64
		want string
	}{
		{0, 500e6, "500 MB of 2 GB (25 %)"},
		{500 * time.Millisecond, 600e6, "600 MB of 2 GB (30 %)"},
		{4500 * time.Millisecond, 1000e6, "1 GB of 2 GB (50 %), 100 MB/s, 10s left"},
		{95 * time.Second, 1500e6, "1.5 GB of 2 GB (75 %), 10 MB/s, 50s left"},
		{0, 2000e6, "2 GB of 2 GB (100 %), 15 MB/s, 0s left"},
	} {
		now = now.Add(c.wait)
		if got := r.Line(c.done, 2e9); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}
