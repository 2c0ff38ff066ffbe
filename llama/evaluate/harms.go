package evaluate

import (
	"context"
	"math"
	"slices"

	"github.com/kvqbook/kvqbook/internal/engine"
	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// Harms are what codes of single layers cost: the mean KL divergence from full precision, in nats,
// of a cache in which one layer's keys, or its values, are codes, and all else is exact. Layers
// that were not measured yet are missing at the end.
type Harms struct {
	Base         kvq.Config // how codes are made; its bits are the fewest that were tried
	Keys, Values []Harm     // of each layer
}

// Harm has the divergences of one layer's keys or values with the bits of [Harms.Widths], fewest
// first.
type Harm []float64

// triedWidths is how many numbers of bits are tried: that of the base, and the next ones.
const triedWidths = 3

// Widths are the numbers of bits that are tried.
func (h *Harms) Widths() (keys, values []int, err error) {
	key, value, err := widthsOf(h.Base)
	return widthsFrom(key, triedWidths), widthsFrom(value, triedWidths), err
}

// widthsFrom are the first n widths from bits on.
func widthsFrom(bits, n int) []int {
	all := kvq.Widths()
	first := max(slices.Index(all, bits), 0)
	return all[first:min(first+n, len(all))]
}

// Complete tells whether each layer that there is has all divergences, of finite numbers from 0 on:
// what comes from a file may not.
func (h *Harms) Complete() bool {
	keys, values, err := h.Widths()
	if err != nil || len(h.Keys) != len(h.Values) {
		return false
	}
	for layer := range h.Keys {
		if len(h.Keys[layer]) != len(keys) || len(h.Values[layer]) != len(values) {
			return false
		}
		for _, kl := range slices.Concat(h.Keys[layer], h.Values[layer]) {
			if !(kl >= 0 && kl <= math.MaxFloat64) {
				return false
			}
		}
	}
	return true
}

// at is the divergence with the i-th of the widths from the base's on. What was not tried is taken
// to have a quarter of the error for each bit more.
func (h Harm) at(i int, widths []int) float64 {
	if i < len(h) {
		return h[i]
	}
	return h[len(h)-1] * math.Pow(4, float64(widths[len(h)-1]-widths[i]))
}

// HarmOptions say how harms are measured. The zero value is usable.
type HarmOptions struct {
	Prefill int // as in [Options]
	// Known are harms of the same model, texts and base that were measured before: they are not
	// measured again. nil: none.
	Known *Harms
	// Seen gets what is known after each layer; an error from it ends the search. nil: nobody does.
	Seen func(*Harms) error
	// Progress is told how many caches are measured, and how many there are. nil: nobody is told.
	Progress func(done, total int) error
}

// MeasureHarms measures what codes of base's bits, and of the next two widths, cost in each layer's
// keys and values. All texts [B][n] of token ids are read at once, at most 2,048 tokens of each, a
// layer after the other: of a layer that is alone in having codes, those before it are read once. A
// graph is compiled for each width of keys and of values, not for each layer. Full precision's
// predictions stay on the device meanwhile, 4 bytes for each scored token and word of the
// vocabulary.
func MeasureHarms(ctx context.Context, model *llama.Model, texts [][]tokenizer.Token, base kvq.Config, o HarmOptions) (*Harms, error) {
	if err := checkBase(base); err != nil {
		return nil, err
	}
	h := &Harms{Base: base}
	keyWidths, valueWidths, err := h.Widths()
	if err != nil {
		return nil, err
	}
	if o.Known != nil {
		if o.Known.Base != base || !o.Known.Complete() || len(o.Known.Keys) > model.Config().Layers {
			return nil, usererr.New("harms of %s in %d layers, want those of %s in %d", o.Known.Base, len(o.Known.Keys), base, model.Config().Layers)
		}
		h.Keys, h.Values = slices.Clone(o.Known.Keys), slices.Clone(o.Known.Values)
	}
	layers := model.Config().Layers
	if len(h.Keys) == layers {
		return h, nil
	}
	r, err := newReading(ctx, model, texts, base, Options{Prefill: o.Prefill})
	if err != nil {
		return nil, err
	}
	defer r.free()
	each := len(keyWidths) + len(valueWidths)
	done := each * len(h.Keys)
	x, err := r.reader.Embed(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { free(&x) }()
	for layer := range layers {
		if layer >= len(h.Keys) {
			measure := func(coded engine.LayerCodes) (float64, error) {
				list := make([]engine.LayerCodes, layers-layer)
				list[0] = coded
				rows, err := r.scoresOf(ctx, layer, list, x)
				if err != nil {
					return 0, err
				}
				done++
				if o.Progress != nil {
					err = o.Progress(done, each*layers)
				}
				return max(join(rows).MeanKL(), 0), err
			}
			var keys, values Harm
			for _, bits := range keyWidths {
				kl, err := measure(engine.LayerCodes{Keys: true, KeyBits: bits})
				if err != nil {
					return nil, err
				}
				keys = append(keys, kl)
			}
			for _, bits := range valueWidths {
				kl, err := measure(engine.LayerCodes{Values: true, ValueBits: bits})
				if err != nil {
					return nil, err
				}
				values = append(values, kl)
			}
			h.Keys, h.Values = append(h.Keys, keys), append(h.Values, values)
			if o.Seen != nil {
				if err := o.Seen(h); err != nil {
					return nil, err
				}
			}
		}
		if x, err = r.layer(ctx, layer, engine.LayerCodes{}, x, true); err != nil {
			x = nil
			return nil, err
		}
	}
	return h, nil
}

// checkBase refuses what has no bits to choose.
func checkBase(base kvq.Config) error {
	switch {
	case base.LayerBits != "":
		return usererr.New("a cache with LayerBits %q: want one whose layers are alike, to give them bits of their own", base.LayerBits)
	case !base.Quantized():
		return usererr.New("a full-precision cache has no bits to spread over layers: want a quantized one")
	}
	_, _, err := widthsOf(base)
	return err
}
