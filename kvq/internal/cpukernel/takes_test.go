package cpukernel

import (
	"testing"

	"github.com/kvqbook/kvqbook/kvq/internal/codes"
	"github.com/kvqbook/kvqbook/kvq/internal/numbers"
)

// What fits is taken, and one thing that does not fit on either side is named.
func TestTakes(t *testing.T) {
	format := func(keys bool, q *numbers.Quantizer, bits, dim, group int, perChannel bool) codes.Format {
		return codes.New(numbers.Spec{Quantizer: q, Bits: bits, Keys: keys}, dim, group, perChannel, false)
	}
	value := format(false, numbers.MinMax, 4, 64, 32, false)
	for _, c := range []struct {
		key  codes.Format
		want string
	}{
		{format(true, numbers.MinMax, 4, 64, 32, false), ""},
		{format(true, numbers.MinMax, 5, 128, 64, true), ""},
		{format(true, numbers.MinMax, 3, 512, 32, false), ""},
		{format(true, numbers.MinMax, 4, 576, 32, false), "head dimension 576, at most 512 can be"},
		{format(true, numbers.MinMax, 8, 260, 4, false), "65 groups a head, at most 64 can be"},
		{format(true, numbers.MinMax, 4, 64, 16, true), "groups of 16 tokens, multiples of 32 can be"},
	} {
		if got := Takes(c.key, value); got != c.want {
			t.Errorf("%+v: %q, want %q", c.key.Layout, got, c.want)
		}
	}
	wide := format(false, numbers.MinMax, 4, 576, 32, false)
	if got, want := Takes(format(true, numbers.MinMax, 4, 64, 32, false), wide), "head dimension 576, at most 512 can be"; got != want {
		t.Errorf("wide values: %q, want %q", got, want)
	}
}
