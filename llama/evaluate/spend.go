package evaluate

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// Spent is what [Spend] gave.
type Spent struct {
	Config        kvq.Config // with LayerBits
	Before, After Candidate  // the cache that it began with, and the one that it found
}

// finestBits stand for full precision where one layer alone is coded coarsely.
const finestBits = 8

// Spend spreads bits over the layers of a cache, keys and values apart, so that the texts [B][n] of
// token ids are predicted as well as its estimate can tell: it returns base with LayerBits, of at
// most so many bits a value, scales and all included.
//
// For each layer's keys, and for its values, it measures the KL divergence from full precision of a
// cache in which they alone have base's bits, and all others 8. Errors of layers are taken to add
// up, and each bit more to quarter one. Then single bits go where they save most, as long as there
// are any. KVTuner (arXiv 2502.04420) searches for mixed bits too, by other means.
//
// It measures twice as many caches as there are layers, and the two with and without what it found,
// and compiles a graph for each. Full precision's predictions stay on the device meanwhile, 4 bytes
// for each scored token and word of the vocabulary. Of o, the Reference is not used; o.Progress is
// told of measured caches.
func Spend(ctx context.Context, model *llama.Model, texts [][]tokenizer.Token, base kvq.Config, bits float64, o Options) (Spent, error) {
	if base.LayerBits != "" {
		return Spent{}, usererr.New("a cache with LayerBits %q: want one whose layers are alike, to give them bits of their own", base.LayerBits)
	}
	if !base.Quantized() {
		return Spent{}, usererr.New("a full-precision cache has no bits to spread over layers: want a quantized one")
	}
	key, value, err := widthsOf(base)
	if err != nil {
		return Spent{}, err
	}
	layers := model.Config().Layers
	spent := newSpending(layers, key, value)
	plain, err := bitsOf(model, base)
	if err != nil {
		return Spent{}, err
	}
	if plain > bits {
		return Spent{}, usererr.New("%g bits a value: want at least the %g that the cache has without bits of single layers", bits, plain)
	}
	m, err := newMeasuring(ctx, model, texts, len(spent.bits)+2, o)
	if err != nil {
		return Spent{}, err
	}
	defer m.free()
	if spent.harm, err = m.harms(base, spent); err != nil {
		return Spent{}, err
	}
	total := plain
	for spent.next() {
		have, err := bitsOf(model, spent.config(base))
		if err != nil {
			return Spent{}, err
		}
		if have > bits {
			spent.undo()
			break
		}
		total = have
	}
	out := Spent{Config: spent.config(base), Before: Candidate{Config: base, Bits: plain}}
	out.After = Candidate{Config: out.Config, Bits: total}
	for _, c := range []*Candidate{&out.Before, &out.After} {
		if err := m.measure(c); err != nil {
			return Spent{}, err
		}
	}
	return out, nil
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

// measuring compares caches with full precision, whose predictions are made once.
type measuring struct {
	ctx         context.Context
	model       *llama.Model
	texts       [][]tokenizer.Token
	o           Options
	told        func(done, total int) error
	done, total int
}

func newMeasuring(ctx context.Context, model *llama.Model, texts [][]tokenizer.Token, caches int, o Options) (*measuring, error) {
	m := &measuring{ctx: ctx, model: model, texts: texts, told: o.Progress, total: caches}
	o.Progress = nil
	full, err := llama.NewGenerator(model, kvq.Config{})
	if err != nil {
		return nil, err
	}
	defer full.Finalize()
	kept, err := Keep(ctx, full, texts, o)
	if err != nil {
		return nil, err
	}
	o.Reference, o.Kept = nil, kept
	m.o = o
	return m, nil
}

func (m *measuring) free() { m.o.Kept.Free() }

func (m *measuring) measure(c *Candidate) error {
	if err := c.measure(m.ctx, m.model, m.texts, m.o); err != nil {
		return err
	}
	m.done++
	if m.told == nil {
		return nil
	}
	return m.told(m.done, m.total)
}

// harms measures the divergence that each layer's keys, then each layer's values, bring alone.
func (m *measuring) harms(base kvq.Config, s *spending) ([]float64, error) {
	harm := make([]float64, len(s.bits))
	for i := range harm {
		alone := newSpending(s.layers, finestBits, finestBits)
		alone.bits[i] = s.bits[i]
		c := Candidate{Config: alone.config(base)}
		if err := m.measure(&c); err != nil {
			return nil, err
		}
		harm[i] = max(c.KL, 0)
	}
	return harm, nil
}

// spending has the bits of each layer's keys, then of each layer's values, and the divergence that
// each brings with the bits that it began with.
type spending struct {
	layers      int
	bits, began []int
	harm        []float64
	last        int
}

func newSpending(layers, key, value int) *spending {
	s := &spending{layers: layers}
	for i := range 2 * layers {
		if i < layers {
			s.bits = append(s.bits, key)
		} else {
			s.bits = append(s.bits, value)
		}
	}
	s.began = append(s.began, s.bits...)
	return s
}

// next gives one bit more to where it saves the most, and tells whether there was such a place.
func (s *spending) next() bool {
	best, at := 0.0, -1
	for i, bits := range s.bits {
		to := s.wider(i)
		if to == 0 {
			continue
		}
		// A bit quarters an error; where a width is missing, two bits share what they save.
		saved := (s.left(i, bits) - s.left(i, to)) / float64(to-bits)
		if saved > best {
			best, at = saved, i
		}
	}
	if at < 0 {
		return false
	}
	s.last = at
	s.bits[at] = s.wider(at)
	return true
}

// left is what a place brings with other bits than it began with.
func (s *spending) left(i, bits int) float64 {
	harm := s.harm[i]
	for range bits - s.began[i] {
		harm /= 4
	}
	return harm
}

// undo takes back what next gave.
func (s *spending) undo() { s.bits[s.last] = s.narrower(s.last) }

// wider is the next number of bits that there is, 0 where there is none.
func (s *spending) wider(i int) int {
	for _, n := range kvq.Widths() {
		if n > s.bits[i] {
			return n
		}
	}
	return 0
}

func (s *spending) narrower(i int) (n int) {
	for _, w := range kvq.Widths() {
		if w < s.bits[i] {
			n = w
		}
	}
	return n
}

// config is base with the bits of s, LayerBits as short as it gets: layers whose bits are those of
// base are not named.
func (s *spending) config(base kvq.Config) kvq.Config {
	var parts []string
	same := func(a, b int) bool { return s.bits[a] == s.bits[b] && s.bits[s.layers+a] == s.bits[s.layers+b] }
	key, value, _ := widthsOf(base)
	for first := 0; first < s.layers; {
		last := first
		for last+1 < s.layers && same(first, last+1) {
			last++
		}
		if k, v := s.bits[first], s.bits[s.layers+first]; k != key || v != value {
			name := fmt.Sprint(first)
			if last > first {
				name = fmt.Sprintf("%d-%d", first, last)
			}
			parts = append(parts, fmt.Sprintf("%s=%d/%d", name, k, v))
		}
		first = last + 1
	}
	base.LayerBits = strings.Join(parts, ",")
	return base
}
