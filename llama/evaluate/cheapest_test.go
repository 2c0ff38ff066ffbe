package evaluate

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/kvqbook/kvqbook/internal/testlane"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama"
)

func TestCheapestTriesFewestBitsFirst(t *testing.T) {
	testlane.Slow(t, "evaluates several caches")
	m := tiny(t)
	bits := func(n int) kvq.Config {
		return kvq.Config{Backend: kvq.Blocks, NBits: n, QGroupSize: 16, ResidualLength: 8}
	}
	candidates := []kvq.Config{bits(8), bits(2), bits(4)}
	// A budget that nothing misses: the cheapest is taken at once.
	got, seen, err := Cheapest(context.Background(), m, longTexts(), 1e6, candidates, Options{Prefill: 10})
	if err != nil || got != bits(2) || len(seen) != 1 {
		t.Fatalf("with a budget of 1e6 got %v after %d candidates, %v; want 2 bits after 1", got, len(seen), err)
	}
	// 2 bits, and scale and zero point of 16 bits for 16 values
	if seen[0].KL <= 0 || seen[0].Bits != 4 {
		t.Errorf("2 bits measured as %+v", seen[0])
	}
	// One that 2 bits just miss.
	got, seen, err = Cheapest(context.Background(), m, longTexts(), seen[0].KL*0.99, candidates, Options{Prefill: 10})
	if err != nil || got == bits(2) || len(seen) < 2 {
		t.Fatalf("with a budget below 2 bits' divergence got %v after %+v, %v", got, seen, err)
	}
	last := seen[len(seen)-1]
	if last.Config != got || last.KL > seen[0].KL*0.99 || seen[1].Bits <= seen[0].Bits {
		t.Errorf("measured %+v", seen)
	}
	// One that nothing meets.
	_, seen, err = Cheapest(context.Background(), m, longTexts(), 1e-12, candidates, Options{Prefill: 10})
	if !errors.Is(err, llama.ErrInput) || !strings.Contains(err.Error(), "3 candidates") || len(seen) != 3 {
		t.Errorf("with a budget of 1e-12 got %v after %d candidates", err, len(seen))
	}
	if _, _, err := Cheapest(context.Background(), m, longTexts(), 0, candidates, Options{Prefill: 10}); !errors.Is(err, llama.ErrInput) {
		t.Errorf("a budget of 0 gave %v", err)
	}
}
