package evaluate

import (
	"context"
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/kvqbook/kvqbook/internal/testlane"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama"
)

// harmsOf are those of layers whose error a bit quarters, for widths 2, 3, 4 and 5.
func harmsOf(keys, values []float64) spending {
	s := spending{keys: []int{2, 3, 4, 5}, values: []int{2, 3, 4, 5}}
	for i := range keys {
		s.costs = append(s.costs, func(k, v int) float64 {
			return keys[i]*math.Pow(4, -float64(k)) + values[i]*math.Pow(4, -float64(v))
		})
	}
	return s
}

// Three layers, 2 bits for keys and values. The keys of layer 1 bring 16, their values 3, all
// others 1: one bit more saves three quarters of it, so keys of layer 1 come first (12, then 3 from
// 3 to 4 bits), then values of layer 1 (2.25). Of the others each saves 0.75, as the keys' fifth
// bit does.
func TestSpending(t *testing.T) {
	s := harmsOf([]float64{1, 16, 1}, []float64{1, 3, 1})
	for budget, want := range []string{"", "1=3/2", "1=4/2", "1=4/3"} {
		if got := layerBits(s.best(budget), pair{2, 2}); got != want {
			t.Errorf("%d bits more: %q, want %q", budget, got, want)
		}
	}
}

// Among few kinds of layers, against all ways to give each layer one of them, and all sets of
// kinds.
func TestSpendingOfFewKinds(t *testing.T) {
	s := harmsOf([]float64{3, 16, 1}, []float64{1, 5, 9})
	s.keys, s.values = []int{2, 3, 4}, []int{2, 3, 4}
	for kinds := range 4 {
		s.kinds = kinds
		for budget := range 9 {
			least := math.Inf(1)
			for code := range 9 * 9 * 9 { // a pair for each layer
				sum, cost, used := 0, 0.0, map[int]bool{}
				for layer := range 3 {
					p := code / []int{1, 9, 81}[layer] % 9
					used[p] = true
					sum, cost = sum+p/3+p%3, cost+s.costs[layer](p/3, p%3)
				}
				if sum <= budget && (kinds == 0 || len(used) <= kinds) {
					least = min(least, cost)
				}
			}
			sum, cost, used := 0, 0.0, map[pair]bool{}
			for layer, p := range s.best(budget) {
				used[p] = true
				sum, cost = sum+p.key+p.value-4, cost+s.costs[layer](p.key-2, p.value-2)
			}
			if sum > budget || kinds > 0 && len(used) > kinds || math.Abs(cost-least) > 1e-12 {
				t.Errorf("%d kinds, %d bits more: %d bits, %d kinds, cost %g, want %g", kinds, budget, sum, len(used), cost, least)
			}
		}
	}
}

func TestLayerBitsNamesRuns(t *testing.T) {
	got := layerBits([]pair{{2, 3}, {4, 4}, {4, 4}, {2, 3}, {4, 4}}, pair{2, 3})
	if want := "1-2=4/4,4=4/4"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Widths that were not tried are a quarter for each bit; there are no 7 bits.
func TestHarmAt(t *testing.T) {
	h, widths := Harm{16, 8, 4}, []int{4, 5, 6, 8}
	for i, want := range []float64{16, 8, 4, 0.25} {
		if got := h.at(i, widths); got != want {
			t.Errorf("%d bits: %g, want %g", widths[i], got, want)
		}
	}
	if got := widthsFrom(5, 3); !slices.Equal(got, []int{5, 6, 8}) {
		t.Errorf("widths %v, want 5, 6, 8", got)
	}
}

// spendBase costs 2 bits, and scale and zero point of 16 bits for 16 values: 4.
var spendBase = kvq.Config{Backend: kvq.Blocks, NBits: 2, QGroupSize: 16, ResidualLength: 8}

func TestSpend(t *testing.T) {
	testlane.Slow(t, "compiles layers")
	m := tiny(t)
	var told []int
	var kept []Harms
	o := HarmOptions{Prefill: 10, Progress: func(done, total int) error {
		told = append(told, done, total)
		return nil
	}, Seen: func(h *Harms) error {
		kept = append(kept, *h)
		return nil
	}}
	got, err := Spend(context.Background(), m, longTexts(), spendBase, 5, 0, o)
	if err != nil {
		t.Fatal(err)
	}
	// Each bit for the keys or values of one of two layers is a quarter.
	if got.Before.Bits != 4 || got.After.Bits != 5 || got.Config.LayerBits == "" {
		t.Errorf("from %g to %g bits with %q, want 4 to 5", got.Before.Bits, got.After.Bits, got.Config.LayerBits)
	}
	if got.Before.KL <= got.After.KL || got.After.KL <= 0 {
		t.Errorf("KL from %g to %g, want less", got.Before.KL, got.After.KL)
	}
	// Three widths of keys and of values in two layers.
	if len(told) != 24 || told[0] != 1 || told[22] != 12 || told[23] != 12 {
		t.Errorf("told %v, want 1 of 12 to 12 of 12", told)
	}
	for _, side := range [][]Harm{got.Harms.Keys, got.Harms.Values} {
		for layer, h := range side {
			if len(h) != 3 || h[0] <= h[1] || h[1] <= h[2] || h[2] <= 0 {
				t.Errorf("layer %d: harms %v, want less with each bit", layer, h)
			}
		}
	}
	t.Run("from known ones", func(t *testing.T) {
		if len(kept) != 2 || len(kept[0].Keys) != 1 {
			t.Fatalf("seen %d times, the first time %d layers, want 2 and 1", len(kept), len(kept[0].Keys))
		}
		known := kept[0] // as after an interruption behind the first layer
		told = nil
		o := o
		o.Known = &known
		again, err := Spend(context.Background(), m, longTexts(), spendBase, 5, 0, o)
		if err != nil {
			t.Fatal(err)
		}
		if again.Config != got.Config || len(told) != 12 || told[0] != 7 {
			t.Errorf("%q, told %v; want %q, and 7 of 12 first", again.Config.LayerBits, told, got.Config.LayerBits)
		}
	})
	t.Run("an error ends it", func(t *testing.T) {
		stop := errors.New("stop")
		_, err := MeasureHarms(context.Background(), m, longTexts(), spendBase, HarmOptions{Prefill: 10, Seen: func(*Harms) error { return stop }})
		if !errors.Is(err, stop) {
			t.Errorf("got %v, want the error of Seen", err)
		}
	})
	t.Run("candidates of Cheapest", func(t *testing.T) {
		var list []kvq.Config
		for _, bits := range []float64{4.5, 5, 6} {
			c, err := got.Harms.Spread(m, bits, 2)
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, c)
		}
		chosen, seen, err := Cheapest(context.Background(), m, longTexts(), 1.01*got.After.KL, list, Options{Prefill: 10})
		if err != nil {
			t.Fatal(err)
		}
		if chosen.LayerBits != list[1].LayerBits || len(seen) != 2 || seen[0].Bits != 4.5 {
			t.Errorf("took %q after %d, want %q after 2", chosen.LayerBits, len(seen), list[1].LayerBits)
		}
	})
}

func TestSpendRefuses(t *testing.T) {
	m := tiny(t)
	blocks := kvq.Config{Backend: kvq.Blocks, NBits: 4, QGroupSize: 16, ResidualLength: 8}
	single := blocks
	single.LayerBits = "0=8/8"
	bytes := blocks
	bytes.QuantizerKey = kvq.Int8
	uneven := kvq.Config{Backend: kvq.Quanto, NBits: 4, QGroupSize: 32, AxisKey: kvq.PerChannel, ResidualLength: 64}
	for name, c := range map[string]struct {
		base kvq.Config
		bits float64
	}{
		"full precision":                        {kvq.Config{}, 5},
		"bits of single layers":                 {single, 7},
		"codes of a byte":                       {bytes, 9},
		"fewer than it has":                     {blocks, 5.9}, // it has 6
		"a prompt of 10 tokens in groups of 32": {uneven, 9},
	} {
		if _, err := Spend(context.Background(), m, longTexts(), c.base, c.bits, 0, HarmOptions{Prefill: 10}); !errors.Is(err, llama.ErrInput) {
			t.Errorf("%s: got %v, want an error of bad input", name, err)
		}
	}
}
