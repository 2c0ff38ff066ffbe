package exercise

import (
	"math"
	"slices"
	"testing"

	"github.com/kvqbook/kvqbook/internal/testbackend"
	"github.com/kvqbook/kvqbook/internal/testlane"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/notebooks/nb"
	"github.com/kvqbook/kvqbook/notebooks/solutions"
)

func TestInBlocks(t *testing.T) {
	tell(t,
		tried{"solution", InBlocks(solutions.InBlocks), ""},
		tried{"at once", InBlocks(func(p, f, s, r int) int { return max(p+f-s-r, 0) / 32 * 32 }),
			"with a prompt of 100, 32 new tokens, 4 sinks and a residual of 64 the number of tokens in codes is 64, wanted 32 (off by 32)"},
		tried{"not in blocks", InBlocks(func(p, f, s, r int) int { return max(p+f-s-r, 0) }), "with a prompt of 100, 32 new"},
		tried{"sinks forgotten", InBlocks(func(p, f, _, r int) int { return solutions.InBlocks(p, f, 0, r) }), "with a prompt of 100, 32 new tokens"},
		tried{"the prompt whole", InBlocks(func(p, f, s, _ int) int { return solutions.InBlocks(p, f, s, 0) }), "is 96, wanted 32"},
		tried{"stub", InBlocks(func(_, _, _, _ int) int { return 0 }), "is 0, wanted 32"},
	)
}

func TestRingSlot(t *testing.T) {
	tell(t,
		tried{"solution", RingSlot(solutions.RingSlot), ""},
		tried{"no ring", RingSlot(func(token, _, _ int) int { return token }), "with token 2, 2 sinks and 48 slots of window the slot is 2, wanted 4"},
		tried{"a ring over the sinks", RingSlot(func(token, s, w int) int { return token % (s + w) }), "with token 2,"},
		tried{"counted from the sinks", RingSlot(func(token, s, w int) int {
			if token < s {
				return token
			}
			return s + (token-s)%w
		}), "with token 2, 2 sinks and 48 slots of window the slot is 2, wanted 4"},
		tried{"sinks in the ring", RingSlot(func(token, s, w int) int { return s + token%w }), "with token 1, "},
		tried{"stub", RingSlot(func(_, _, _ int) int { return 0 }), "is 0, wanted 1"},
	)
}

func TestCodeAt(t *testing.T) {
	tell(t,
		tried{"solution", CodeAt(solutions.CodeAt), ""},
		tried{"from the other end", CodeAt(func(w uint32, i, b int) int { return solutions.CodeAt(w, 32/b-1-i, b) }), "with the word 0x87654321, code 0 of 4 bits each the code is 8, wanted 1"},
		tried{"not masked", CodeAt(func(w uint32, i, b int) int { return int(w >> (i * b)) }), "code 0 of 4 bits"},
		tried{"always 4 bits", CodeAt(func(w uint32, i, _ int) int { return solutions.CodeAt(w, i, 4) }), "code 1 of 2 bits"},
		tried{"stub", CodeAt(func(uint32, int, int) int { return 0 }), "is 0, wanted 1"},
	)
}

func TestMerged(t *testing.T) {
	naive := func(la, sa, oa, lb, sb, ob float64) float64 {
		a, b := math.Exp(la), math.Exp(lb)
		return (a*oa + b*ob) / (a*sa + b*sb)
	}
	tell(t,
		tried{"solution", Merged(solutions.Merged), ""},
		tried{"infinite exponentials", Merged(naive), "with scores of some thousands the result is not a number (NaN)"},
		tried{"largest scores forgotten", Merged(func(_, sa, oa, _, sb, ob float64) float64 { return (oa + ob) / (sa + sb) }), "with the larger score in the first part"},
		tried{"the mean of both", Merged(func(_, sa, oa, _, sb, ob float64) float64 { return (oa/sa + ob/sb) / 2 }), "1 of 5 cases are right"},
		tried{"stub", Merged(func(_, _, _, _, _, _ float64) float64 { return 0 }), "with two equal scores the result is 0, wanted 1.5"},
	)
}

// The literal answers are what real caches hold.
func TestInGraphIsTheCaches(t *testing.T) {
	testlane.OnlyAll(t, "runs eight caches")
	backend := testbackend.XLA(t)
	blocks := func(sinks, residual int) kvq.Config {
		return kvq.Config{Backend: kvq.Blocks, NBits: 4, QGroupSize: 64, Sinks: sinks, ResidualLength: residual}
	}
	for _, c := range inBlocks {
		if got := nb.Life(backend, blocks(c.sinks, c.residual), c.prompt, c.fed)[c.fed].Coded; got != c.want {
			t.Errorf("%+v: the cache has %d in codes", c, got)
		}
	}
	slots := nb.ExactSlots(backend, blocks(2, 16), 10, 60)
	for _, c := range ringSlots {
		if len(slots[0]) != c.sinks+c.window {
			t.Fatalf("%d slots", len(slots[0]))
		}
		arrived := slots[max(c.token-9, 0)] // after the prompt of 10, or when it had just come
		if got := slices.Index(arrived, c.token); got != c.want {
			t.Errorf("%+v: token in slot %d of %v", c, got, arrived)
		}
	}
}
