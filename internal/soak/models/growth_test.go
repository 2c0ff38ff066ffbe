package models

import (
	"strings"
	"testing"
)

// A rule of 1 MiB in 100 tokens, 1 MiB in all: the warm-up does not count, steps up and down do
// not, a slope on the host or on the device does.
func TestRule(t *testing.T) {
	r := rule{bytes: mib, slack: mib, per: 100}
	series := func(f func(i int) (resident, device int64)) (list []sample) {
		for i := range 30 {
			host, dev := f(i)
			list = append(list, sample{10 * i, host, dev})
		}
		return list
	}
	for _, c := range []struct {
		name string
		f    func(i int) (resident, device int64)
		ok   bool
		said string
	}{
		{"flat", func(int) (int64, int64) { return 5 * mib, 5 * mib }, true, "+0.00 MiB in 100 tokens"},
		{"warm-up", func(i int) (int64, int64) { return int64(min(i, 9)) * 50 * mib, 0 }, true, "+0.00 MiB in 100 tokens"},
		{"noise", func(i int) (int64, int64) { return int64(100+i%3) * mib, 0 }, true, ""},
		{"falling", func(i int) (int64, int64) { return int64(100-i) * mib, mib }, true, "+0.00 MiB in 100 tokens"},
		{"slack", func(i int) (int64, int64) { return int64(max(0, i-20)) * mib / 16, 0 }, true, ""},
		// 2 MiB in 10 samples of 10 tokens
		{"host", func(i int) (int64, int64) { return int64(i) * mib / 5, 0 }, false, "+2.00 MiB in 100 tokens"},
		{"device", func(i int) (int64, int64) { return 0, int64(i) * mib / 5 }, false, "+2.00 MiB in 100 tokens"},
	} {
		if ok, said := r.judge(series(c.f)); ok != c.ok || !strings.HasPrefix(said, c.said) {
			t.Errorf("%s: %v, %s; want %v, %s", c.name, ok, said, c.ok, c.said)
		}
	}
}
