// Package models has the parts of ./scripts/soak that run models and caches for long: memory,
// goroutines, numbers at the edges of float32, runs that are equal bit by bit, lengths at every
// boundary.
package models

import (
	"fmt"
	"sync"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"

	"github.com/kvqbook/kvqbook/device"
	"github.com/kvqbook/kvqbook/internal/asset"
	"github.com/kvqbook/kvqbook/internal/engine"
	"github.com/kvqbook/kvqbook/internal/soak"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// Parts are the parts of this package.
var Parts = []soak.Part{memory, goroutines, extremes, repeats, lengths}

// backend is the device that KVQ_BACKEND names, else the machine's best: one for the process.
var backend = sync.OnceValues(func() (compute.Backend, error) { return device.Open("") })

// named is a configuration of a cache by the name that messages have for it.
type named struct {
	name   string
	config kvq.Config
}

// caches reach every policy, quantizer and format of scales, and all presets. Windows are short
// where the configuration is no preset, so that short texts cross them.
func caches() []named {
	blocks := func(change func(c *kvq.Config)) kvq.Config {
		c := kvq.Config{Backend: kvq.Blocks, NBits: 4, QGroupSize: 32, ResidualLength: 6}
		change(&c)
		return c
	}
	list := []named{
		{"full", kvq.Config{}},
		{"tutorial", kvq.Tutorial()},
		{"quanto-2", kvq.Config{Backend: kvq.Quanto, NBits: 2, QGroupSize: 32, ResidualLength: 9}},
		{"quanto-channel", kvq.Config{Backend: kvq.Quanto, NBits: 4, QGroupSize: 32, ResidualLength: 32, AxisKey: kvq.PerChannel}},
		{"hqq", kvq.Config{Backend: kvq.HQQ, NBits: 4, QGroupSize: 32, ResidualLength: 8, AxisKey: 1, AxisValue: 1}},
		{"symmetric-2", blocks(func(c *kvq.Config) { c.NBits, c.QuantizerKey, c.QuantizerValue = 2, kvq.Symmetric, kvq.Symmetric })},
		{"int8-float8", blocks(func(c *kvq.Config) { c.NBits, c.QuantizerKey, c.QuantizerValue = 0, kvq.Int8, kvq.Float8 })},
		{"searched", blocks(func(c *kvq.Config) {
			c.NBitsKey, c.NBitsValue, c.QuantizerKey, c.QuantizerValue = 2, 3, kvq.LeastSquares, kvq.HalfQuadratic
		})},
		{"float16-scales", blocks(func(c *kvq.Config) { c.AxisKey, c.Scales, c.Sinks = kvq.PerChannel, kvq.ScaleFloat16, 2 })},
	}
	for _, name := range kvq.Presets() {
		config, err := kvq.Preset(name)
		if err != nil {
			panic(err) // Presets named it
		}
		list = append(list, named{name, config})
	}
	return list
}

// some are the caches of these names, in the order of caches.
func some(names ...string) (list []named) {
	for _, c := range caches() {
		for _, name := range names {
			if c.name == name {
				list = append(list, c)
			}
		}
	}
	if len(list) != len(names) {
		panic(fmt.Sprintf("soak: some of %q are no caches", names))
	}
	return list
}

// opened are the models of this process. They stay to its end.
var opened struct {
	sync.Mutex
	models     map[string]*llama.Model
	generators map[string]*llama.Generator // of the quick forms
}

// once opens a model that is not open yet.
func once(name string, open func() (*llama.Model, error)) (*llama.Model, error) {
	opened.Lock()
	defer opened.Unlock()
	if m := opened.models[name]; m != nil {
		return m, nil
	}
	m, err := open()
	if err != nil {
		return nil, err
	}
	if opened.models == nil {
		opened.models = map[string]*llama.Model{}
	}
	opened.models[name] = m
	return m, nil
}

// generatorOf makes a generator, and a function that ends it. Quick forms share theirs: what one of
// them has compiled, the others find.
func generatorOf(s *soak.Sitting, m *llama.Model, c named) (g *llama.Generator, end func(), err error) {
	if !s.Quick {
		if g, err = llama.NewGenerator(m, c.config); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", c.name, err)
		}
		return g, g.Finalize, nil
	}
	opened.Lock()
	defer opened.Unlock()
	key := fmt.Sprintf("%p %s", m, c.name)
	if g = opened.generators[key]; g == nil {
		if g, err = llama.NewGenerator(m, c.config); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", c.name, err)
		}
		if opened.generators == nil {
			opened.generators = map[string]*llama.Generator{}
		}
		opened.generators[key] = g
	}
	return g, func() {}, nil
}

// tiny is a random model that is quick on any machine; its heads are as wide as those of real ones.
func tiny(positions int) (*llama.Model, error) {
	return once(fmt.Sprint("tiny ", positions), func() (*llama.Model, error) { return newTiny(positions) })
}

// small is the set-up's model.
func small() (*llama.Model, error) { return once("small", newSmall) }

func newTiny(positions int) (*llama.Model, error) {
	b, err := backend()
	if err != nil {
		return nil, err
	}
	m, err := engine.NewRandom(b, llama.Config{
		Architecture: "llama", VocabSize: 211, HiddenSize: 64, IntermediateSize: 96, Layers: 2, Heads: 4, KVHeads: 2, HeadDim: 64,
		RopeTheta: 10000, RMSNormEps: 1e-5, MaxPositions: positions, BOS: -1, PadID: 0,
	}, dtypes.Float32, 1, 1)
	if err != nil {
		return nil, err
	}
	return m.(*llama.Model), nil
}

func newSmall() (*llama.Model, error) {
	b, err := backend()
	if err != nil {
		return nil, err
	}
	path, err := asset.SmallModel()
	if err != nil {
		return nil, err
	}
	files, err := llama.Open(path)
	if err != nil {
		return nil, err
	}
	return files.Load(b, llama.LoadOptions{})
}

// prompts are rows of made-up tokens of these lengths, padded on the left to one length. One seed
// gives the same tokens.
func prompts(vocabulary int, seed uint64, lengths ...int) tokenizer.Batch {
	columns := 0
	for _, n := range lengths {
		columns = max(columns, n)
	}
	var batch tokenizer.Batch
	for row, n := range lengths {
		ids, mask := make([]tokenizer.Token, columns), make([]tokenizer.Token, columns)
		x := seed*0x9e3779b97f4a7c15 + uint64(row)*0xbf58476d1ce4e5b9 + 1
		for i := columns - n; i < columns; i++ {
			x = x*6364136223846793005 + 1442695040888963407
			// Low tokens of real models are special ones.
			ids[i], mask[i] = tokenizer.Token(min(vocabulary/8, 100)+int((x>>33)%uint64(vocabulary-vocabulary/8-100))), 1
		}
		batch.IDs, batch.Mask = append(batch.IDs, ids), append(batch.Mask, mask)
	}
	return batch
}

// greedy are settings that make so many tokens whatever the model says.
func greedy(tokens int) llama.GenerateConfig {
	return llama.GenerateConfig{MaxNewTokens: tokens, EOS: []tokenizer.Token{}}
}
