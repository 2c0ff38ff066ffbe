package llama

import "github.com/kvqbook/kvqbook/kvq"

// shapeKey tells models apart whose layers were looked at one by one.
type shapeKey struct {
	layers, hidden, headDim, vocabulary int
	theta                               float64
}

func keyOf(c Config) shapeKey {
	return shapeKey{c.Layers, c.HiddenSize, c.HeadDim, c.VocabSize, c.RopeTheta}
}

// tunedPreset is what of a preset is other for one model.
type tunedPreset struct {
	keyBits, valueBits, keyGroup int
	layerBits                    string
}

// tuned are the presets whose bits were spread over the layers of a model, with as many bits a
// value as the preset has at most. docs/bench-log.md says how, and on which texts: behind prompts
// of 1,024 tokens, from 1 bit on, so that layers that hardly matter pay for those that do. For
// lowest, and with other bits for the others,
//
//	kvq layerbits --preset lowest --layer-bits "" --nbits-key 1 --nbits-value 1 --bits 2.4633 \
//	  --prefill 1024 --max-tokens 2048 --text ...
var tuned = map[shapeKey]map[string]tunedPreset{
	// SmolLM2-135M and SmolLM2-135M-Instruct
	{30, 576, 64, 49152, 100000}: {
		"smallest": {2, 2, 64, "0-2=3/3,3=4/4,4-6=3/3,7-8=4/4,9=3/3,14=4/4,15=3/3,17-18=4/4,20=4/4,21-22=3/3,23-24=4/4,26=3/3,28=3/3"},
		"lower":    {2, 2, 64, "0-2=3/2,3=4/3,4-6=3/2,7-8=4/3,9-10=3/2,11-13=1/1,14=4/3,15=3/2,16=1/1,17-18=4/3,19=3/2,20=4/3,21-22=3/2,23-24=4/3,25=1/1,26=3/2,27=1/1,28-29=3/2"},
		"lowest":   {2, 2, 64, "3-4=3/3,6-8=3/3,11-13=1/1,14=3/3,16=1/1,17-18=3/3,20=3/3,23-24=3/3,25=1/1,27=1/1,29=1/1"},
	},
}

// PresetFor is [kvq.PresetFor] for a model: where bits were spread over the layers of such a model,
// the preset has them ([evaluate.Spend] makes them for others); else all layers have the same.
//
// [evaluate.Spend]: https://pkg.go.dev/github.com/kvqbook/kvqbook/llama/evaluate#Spend
func PresetFor(name string, model Config) (kvq.Config, error) {
	c, err := kvq.PresetFor(name, model.HeadDim)
	if err != nil {
		return c, err
	}
	return WithTunedBits(c, name, model), nil
}

// WithTunedBits is a cache, made of the preset of that name by other settings, with the bits that
// PresetFor gives the model's layers: as it is where no bits were spread.
func WithTunedBits(c kvq.Config, name string, model Config) kvq.Config {
	if t, ok := tuned[keyOf(model)][name]; ok {
		c.NBitsKey, c.NBitsValue, c.QGroupSizeKey, c.LayerBits = t.keyBits, t.valueBits, t.keyGroup, t.layerBits
	}
	return c
}

// IsTuned tells whether PresetFor gives single layers of the model bits of their own.
func IsTuned(name string, model Config) bool {
	_, ok := tuned[keyOf(model)][name]
	return ok
}
