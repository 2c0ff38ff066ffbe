package evaluate

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"strings"

	"github.com/kvqbook/kvqbook/internal/engine"
	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// Spread is base with LayerBits, of at most so many bits a value, scales and all included: bits go
// where they save most, errors of layers taken to add up. At most kinds different pairs of bits for
// keys and values occur, so that XLA compiles few loops; 0: any number. Each bit more than were
// tried is taken to quarter an error, and no layer gets more than three widths above base's.
//
// Harms of all layers have to be there. Configurations of several budgets are candidates for
// [Cheapest].
func (h *Harms) Spread(model *llama.Model, bits float64, kinds int) (kvq.Config, error) {
	layers := model.Config().Layers
	if len(h.Keys) != layers || len(h.Values) != layers {
		return kvq.Config{}, usererr.New("harms of %d layers, the model has %d", len(h.Keys), layers)
	}
	key, value, err := widthsOf(h.Base)
	if err != nil {
		return kvq.Config{}, err
	}
	plain, err := bitsOf(model, h.Base)
	if err != nil {
		return kvq.Config{}, err
	}
	if plain > bits {
		return kvq.Config{}, usererr.New("%g bits a value: want at least the %g that the cache has without bits of single layers", bits, plain)
	}
	// A bit more for the keys or the values of one layer.
	budget := int((bits-plain)*float64(2*layers) + 1e-9)
	s := spending{keys: widthsFrom(key, mostWidths), values: widthsFrom(value, mostWidths), kinds: kinds}
	for layer := range layers {
		s.costs = append(s.costs, func(k, v int) float64 { return h.Keys[layer].at(k, s.keys) + h.Values[layer].at(v, s.values) })
	}
	config := h.Base
	config.LayerBits = layerBits(s.best(budget), pair{key, value})
	return config, nil
}

// mostWidths are how many widths a layer's keys or values may get.
const mostWidths = 4

// pair are bits of a layer's keys and values.
type pair struct{ key, value int }

// spending chooses a pair of bits for each layer.
type spending struct {
	keys, values []int // widths that there are, the base's first
	kinds        int
	costs        []func(key, value int) float64 // of each layer, by the places of widths
}

// choice is a pair by the places of its widths.
type choice struct{ key, value int }

func (s spending) pair(c choice) pair { return pair{s.keys[c.key], s.values[c.value]} }

// more is how many bits a choice has above the fewest.
func (s spending) more(c choice) int {
	return s.keys[c.key] - s.keys[0] + s.values[c.value] - s.values[0]
}

// best has the least cost with at most budget bits more than the fewest, summed over keys and
// values of all layers.
func (s spending) best(budget int) []pair {
	var all []choice
	for k := range s.keys {
		for v := range s.values {
			all = append(all, choice{k, v})
		}
	}
	if s.kinds <= 0 || s.kinds >= len(all) {
		out, _ := s.among(all, budget)
		return out
	}
	var out []pair
	least := math.Inf(1)
	var choose func(from int, chosen []choice)
	choose = func(from int, chosen []choice) {
		if len(chosen) > 0 {
			if list, cost := s.among(chosen, budget); list != nil && cost < least {
				out, least = list, cost
			}
		}
		if len(chosen) == s.kinds {
			return
		}
		for i := from; i < len(all); i++ {
			choose(i+1, append(chosen[:len(chosen):len(chosen)], all[i]))
		}
	}
	choose(0, nil)
	return out
}

// among is best with these pairs alone, and its cost; nil where they need more bits.
func (s spending) among(choices []choice, budget int) ([]pair, float64) {
	layers := len(s.costs)
	// least[b] is the least cost of the layers so far with b bits more in all; from[layer][b] is
	// what the layer has then.
	least, from := make([]float64, budget+1), make([][]int, layers)
	for layer, cost := range s.costs {
		next, chosen := make([]float64, budget+1), make([]int, budget+1)
		for b := range next {
			next[b], chosen[b] = math.Inf(1), -1
		}
		for i, p := range choices {
			more, c := s.more(p), cost(p.key, p.value)
			for b := more; b <= budget; b++ {
				if sum := least[b-more] + c; sum < next[b] {
					next[b], chosen[b] = sum, i
				}
			}
		}
		least, from[layer] = next, chosen
	}
	if math.IsInf(least[budget], 1) {
		return nil, 0
	}
	out := make([]pair, layers)
	for layer, b := layers-1, budget; layer >= 0; layer-- {
		c := choices[from[layer][b]]
		out[layer] = s.pair(c)
		b -= s.more(c)
	}
	return out, least[budget]
}

// layerBits names the layers whose bits are not those of base, as short as it gets.
func layerBits(list []pair, base pair) string {
	var parts []string
	for first := 0; first < len(list); {
		last := first
		for last+1 < len(list) && list[last+1] == list[first] {
			last++
		}
		if p := list[first]; p != base {
			name := fmt.Sprint(first)
			if last > first {
				name = fmt.Sprintf("%d-%d", first, last)
			}
			parts = append(parts, fmt.Sprintf("%s=%d/%d", name, p.key, p.value))
		}
		first = last + 1
	}
	return strings.Join(parts, ",")
}

// Spent is what [Spend] gave.
type Spent struct {
	Config        kvq.Config // with LayerBits
	Before, After Candidate  // the cache that it began with, and the one that it found
	Harms         *Harms
}

// Spend spreads bits over the layers of a cache, keys and values apart, so that the texts [B][n] of
// token ids are predicted as well as its estimate can tell: [MeasureHarms], then [Harms.Spread]. It
// measures the caches before and after the same way, on the same texts: take others to confirm.
//
// KVTuner (arXiv 2502.04420) searches for mixed bits too, by other means.
func Spend(ctx context.Context, model *llama.Model, texts [][]tokenizer.Token, base kvq.Config, bits float64, kinds int, o HarmOptions) (Spent, error) {
	if err := checkBase(base); err != nil {
		return Spent{}, err
	}
	plain, err := bitsOf(model, base)
	if err != nil {
		return Spent{}, err
	}
	if plain > bits {
		return Spent{}, usererr.New("%g bits a value: want at least the %g that the cache has without bits of single layers", bits, plain)
	}
	harms, err := MeasureHarms(ctx, model, texts, base, o)
	if err != nil {
		return Spent{}, err
	}
	out := Spent{Harms: harms, Before: Candidate{Config: base}}
	if out.Config, err = harms.Spread(model, bits, kinds); err != nil {
		return Spent{}, err
	}
	out.After.Config = out.Config
	return out, Read(ctx, model, texts, []*Candidate{&out.Before, &out.After}, Options{Prefill: o.Prefill})
}

// Read measures caches that differ in their bits alone, by layer too, on texts [B][n] that are read
// at once, of at most 2,048 tokens each: it finds what [Score] finds token by token, up to
// rounding, and compiles a graph for each pair of bits. It fills in what each candidate's Config
// costs.
func Read(ctx context.Context, model *llama.Model, texts [][]tokenizer.Token, candidates []*Candidate, o Options) error {
	var r *reading
	var common kvq.Config
	for i, c := range candidates {
		base := c.Config
		base.LayerBits, base.NBits, base.NBitsKey, base.NBitsValue = "", 0, 0, 0
		if i == 0 {
			var err error
			if r, err = newReading(ctx, model, texts, base, o); err != nil {
				return err
			}
			defer r.free()
			common = base
		} else if base != common {
			return usererr.New("caches %s and %s, want some that differ in bits alone", common, base)
		}
		plan, err := planOf(model, c.Config)
		if err != nil {
			return err
		}
		c.Bits = plan.BitsPerValue()
		var coded []engine.LayerCodes
		for layer := range model.Config().Layers {
			key, value := plan.LayerBits(layer)
			coded = append(coded, engine.LayerCodes{Keys: true, Values: true, KeyBits: key, ValueBits: value})
		}
		if err := r.candidate(ctx, coded, c); err != nil {
			return err
		}
	}
	return nil
}

// widthsOf are a configuration's bits of keys and values.
func widthsOf(c kvq.Config) (key, value int, err error) {
	for _, q := range []kvq.Quantizer{c.QuantizerKey, c.QuantizerValue} {
		if q == kvq.Int8 || q == kvq.Float8 {
			return 0, 0, usererr.New("quantizer %q has 8 bits in every layer: want one whose bits can be chosen", q)
		}
	}
	return cmp.Or(c.NBitsKey, c.NBits, 4), cmp.Or(c.NBitsValue, c.NBits, 4), nil
}

// bitsOf is what a value costs in that cache.
func bitsOf(model *llama.Model, config kvq.Config) (float64, error) {
	plan, err := planOf(model, config)
	if err != nil {
		return 0, err
	}
	return plan.BitsPerValue(), nil
}
