package kvq

import (
	"math"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"

	"github.com/kvqbook/kvqbook/internal/usererr"
)

// Sizes that integers cannot multiply are refused, at once and without a plan of them: each alone
// beyond 32 bits, and products whose factors are none.
func TestSizesAreBounded(t *testing.T) {
	good := Shape{Layers: 2, Batch: 1, KVHeads: 2, HeadDim: 32, Capacity: 128, DType: dtypes.Float32}
	with := func(change func(s *Shape, c *Config)) (Config, Shape) {
		s, c := good, Tutorial()
		change(&s, &c)
		return c, s
	}
	for want, change := range map[string]func(s *Shape, c *Config){
		"kvq.Shape.Layers: want at most 65536":          func(s *Shape, c *Config) { s.Layers = math.MaxInt },
		"kvq.Shape.Batch: want at most 2147483647":      func(s *Shape, c *Config) { s.Batch = math.MaxInt },
		"kvq.Shape.KVHeads: want at most":               func(s *Shape, c *Config) { s.KVHeads = 1 << 31 },
		"kvq.Shape.HeadDim: want at most":               func(s *Shape, c *Config) { s.HeadDim = 1 << 40 },
		"kvq.Shape.ValueDim: want at most":              func(s *Shape, c *Config) { s.ValueDim = 1 << 40 },
		"kvq.Shape.Capacity: want at most":              func(s *Shape, c *Config) { s.Capacity = math.MaxInt },
		"kvq.Shape.SlidingWindow: want at most":         func(s *Shape, c *Config) { s.SlidingWindow = math.MaxInt },
		"kvq.Shape: want a cache of less than":          func(s *Shape, c *Config) { s.Batch, s.Capacity = 1<<29, 1<<30 },
		"kvq.Config.ResidualLength: want at most":       func(s *Shape, c *Config) { c.ResidualLength = math.MaxInt },
		"kvq.Config.Sinks: want at most":                func(s *Shape, c *Config) { c.Backend, c.Sinks = Blocks, math.MaxInt },
		"kvq.Config.QGroupSizeKey: want at most":        func(s *Shape, c *Config) { c.QGroupSizeKey = 1 << 40 },
		"want a cache of less than 1152921504606846976": func(s *Shape, c *Config) { *c, s.Batch, s.KVHeads, s.HeadDim = Config{}, 1<<20, 1<<20, 1<<20 },
	} {
		if p, err := New(with(change)); p != nil || !usererr.Is(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, %v; want %q", p, err, want)
		}
	}
	// The largest cache that anybody has is far below.
	c, s := with(func(s *Shape, c *Config) {
		s.Layers, s.Batch, s.KVHeads, s.HeadDim, s.Capacity = 126, 256, 8, 128, 1<<20
	})
	p, err := New(c, s)
	if err != nil {
		t.Fatal(err)
	}
	if full := 4.0 * 126 * 256 * 8 * 128 * 2 * (1 << 20); float64(p.Memory().Total()) > full {
		t.Errorf("%d bytes in codes, %.0f in full precision", p.Memory().Total(), full)
	}
}
