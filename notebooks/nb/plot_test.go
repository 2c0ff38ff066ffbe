package nb

import (
	"strings"
	"testing"
)

func TestTicksStandAtPowersOfTwo(t *testing.T) {
	for _, c := range []struct {
		ticks     powersOfTwo
		low, high float64
		want      string
	}{
		{powersOfTwo{256}, 64, 2048, "256 512 1024 2048"},
		{powersOfTwo{256}, 0, 2048, "0 256 512 1024 2048"},
		{powersOfTwo{1}, 16, 131072, "16 32 64 128 256 512 1024 2048 4096 8192 16384 32768 65536 131072"},
		{powersOfTwo{1}, 0.25, 3, "0.25 0.5 1 2"},
	} {
		var labels []string
		for _, tick := range c.ticks.Ticks(c.low, c.high) {
			labels = append(labels, tick.Label)
		}
		if got := strings.Join(labels, " "); got != c.want {
			t.Errorf("%v from %g to %g: %s, want %s", c.ticks, c.low, c.high, got, c.want)
		}
	}
}
