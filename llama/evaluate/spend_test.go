package evaluate

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/kvqbook/kvqbook/internal/testlane"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama"
)

// Three layers, 2 bits for keys and values. The keys of layer 1 bring 16, their values 3, all
// others 1: one bit more saves three quarters of it, so keys of layer 1 come first (12, then 3 from
// 3 to 4 bits), then values of layer 1 (2.25, after the keys' second bit).
func TestSpending(t *testing.T) {
	s := newSpending(3, 2, 2)
	s.harm = []float64{1, 16, 1, 1, 3, 1}
	base := kvq.Config{Backend: kvq.Blocks, NBits: 2}
	for i, want := range []string{"1=3/2", "1=4/2", "1=4/3", "0=3/2,1=4/3"} {
		if !s.next() {
			t.Fatalf("step %d: nothing to spend on", i)
		}
		// Of equals (0.75 at 4 bits and at the others) the first comes first.
		if got := s.config(base).LayerBits; got != want {
			t.Fatalf("step %d: %q, want %q", i, got, want)
		}
	}
	s.undo()
	if got := s.config(base).LayerBits; got != "1=4/3" {
		t.Errorf("after taking a bit back: %q, want %q", got, "1=4/3")
	}
}

func TestSpendingNamesRuns(t *testing.T) {
	s := newSpending(5, 2, 3)
	for _, layer := range []int{1, 2, 4} {
		s.bits[layer], s.bits[5+layer] = 4, 4
	}
	got := s.config(kvq.Config{Backend: kvq.Blocks, NBitsKey: 2, NBitsValue: 3}).LayerBits
	if want := "1-2=4/4,4=4/4"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Every width that there is can be reached, one after the other and back, and then there is no
// more.
func TestSpendingEnds(t *testing.T) {
	s := newSpending(1, kvq.Widths()[0], kvq.Widths()[len(kvq.Widths())-1])
	s.harm = []float64{1, 1}
	seen := []int{s.bits[0]}
	for s.next() {
		seen = append(seen, s.bits[0])
	}
	if !slices.Equal(seen, kvq.Widths()) {
		t.Errorf("went through %v, want %v", seen, kvq.Widths())
	}
	for i := len(seen) - 2; i >= 0; i-- {
		if s.undo(); s.bits[0] != seen[i] {
			t.Fatalf("undo gave %d, want %d", s.bits[0], seen[i])
		}
	}
}

func TestSpend(t *testing.T) {
	testlane.OnlyAll(t, "evaluates a cache for each layer's keys and values")
	m := tiny(t)
	base := kvq.Config{Backend: kvq.Blocks, NBits: 2, QGroupSize: 16, ResidualLength: 8}
	var told []int
	got, err := Spend(context.Background(), m, longTexts(), base, 5, Options{Prefill: 10, Progress: func(done, total int) error {
		told = append(told, done, total)
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	// 2 bits and scale and zero point of 16 bits for 16 values: 4. Each bit for the keys or values
	// of one of two layers is a quarter.
	if got.Before.Bits != 4 || got.After.Bits != 5 || got.Config.LayerBits == "" {
		t.Errorf("from %g to %g bits with %q, want 4 to 5", got.Before.Bits, got.After.Bits, got.Config.LayerBits)
	}
	if got.Before.KL <= got.After.KL || got.After.KL <= 0 {
		t.Errorf("KL from %g to %g, want less", got.Before.KL, got.After.KL)
	}
	if want := []int{1, 6, 2, 6, 3, 6, 4, 6, 5, 6, 6, 6}; !slices.Equal(told, want) {
		t.Errorf("told %v, want %v", told, want)
	}
}

func TestSpendRefuses(t *testing.T) {
	m := tiny(t)
	blocks := kvq.Config{Backend: kvq.Blocks, NBits: 4, QGroupSize: 16, ResidualLength: 8}
	single := blocks
	single.LayerBits = "0=8/8"
	bytes := blocks
	bytes.QuantizerKey = kvq.Int8
	for name, c := range map[string]struct {
		base kvq.Config
		bits float64
	}{
		"full precision":        {kvq.Config{}, 5},
		"bits of single layers": {single, 7},
		"codes of a byte":       {bytes, 9},
		"fewer than it has":     {blocks, 5.9}, // it has 6
	} {
		if _, err := Spend(context.Background(), m, longTexts(), c.base, c.bits, Options{Prefill: 10}); !errors.Is(err, llama.ErrInput) {
			t.Errorf("%s: got %v, want an error of bad input", name, err)
		}
	}
}
