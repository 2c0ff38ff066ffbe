package modelfile

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/kvqbook/kvqbook/internal/usererr"
)

// configJSON has the fields of Hugging Face's config.json that bear on the result. Pointers tell
// absent (or null) from zero. What later versions of transformers write (rope_parameters) is read
// too.
type configJSON struct {
	ModelType            *string   `json:"model_type"`
	VocabSize            *number   `json:"vocab_size"`
	HiddenSize           *number   `json:"hidden_size"`
	IntermediateSize     *number   `json:"intermediate_size"`
	Layers               *number   `json:"num_hidden_layers"`
	Heads                *number   `json:"num_attention_heads"`
	KVHeads              *number   `json:"num_key_value_heads"`
	HeadDim              *number   `json:"head_dim"`
	MaxPositions         *number   `json:"max_position_embeddings"`
	RMSNormEps           *float64  `json:"rms_norm_eps"`
	RopeTheta            *float64  `json:"rope_theta"`
	RopeScaling          *ropeJSON `json:"rope_scaling"`
	RopeParameters       *ropeJSON `json:"rope_parameters"`
	OriginalMaxPositions *number   `json:"original_max_position_embeddings"`
	PartialRotaryFactor  *float64  `json:"partial_rotary_factor"`
	TieEmbeddings        *bool     `json:"tie_word_embeddings"`
	// absent, null and a number all differ
	SlidingWindow    json.RawMessage `json:"sliding_window"`
	UseSlidingWindow *bool           `json:"use_sliding_window"`
	MaxWindowLayers  *number         `json:"max_window_layers"`
	// of attention, one a layer; absent: all as sliding_window says
	LayerTypes    []string        `json:"layer_types"`
	HiddenAct     *string         `json:"hidden_act"`
	AttentionBias *bool           `json:"attention_bias"`
	MLPBias       *bool           `json:"mlp_bias"`
	Quantization  json.RawMessage `json:"quantization_config"`
	tokensJSON

	warnings []string
}

// tokensJSON are the special tokens, in config.json and, with the last word, in
// generation_config.json.
type tokensJSON struct {
	BOS *tokenIDs `json:"bos_token_id"`
	EOS *tokenIDs `json:"eos_token_id"`
	Pad *tokenIDs `json:"pad_token_id"`
}

type ropeJSON struct {
	RopeType             *string  `json:"rope_type"`
	Type                 *string  `json:"type"` // the older name
	Factor               *float64 `json:"factor"`
	LowFreqFactor        *float64 `json:"low_freq_factor"`
	HighFreqFactor       *float64 `json:"high_freq_factor"`
	OriginalMaxPositions *number  `json:"original_max_position_embeddings"`
	RopeTheta            *float64 `json:"rope_theta"`
	PartialRotaryFactor  *float64 `json:"partial_rotary_factor"`

	empty   bool                 // {} counts as absent, and so do false and [], as in Python
	noType  bool                 // a type is there, and null
	byLayer map[string]*ropeJSON // where the object has an object for each type of layer
}

func (r *ropeJSON) UnmarshalJSON(data []byte) error {
	type plain ropeJSON
	if text := string(bytes.TrimSpace(data)); text == "false" || text == "[]" {
		r.empty = true
		return nil
	}
	if err := decodeFields(data, (*plain)(r)); err != nil {
		return err
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil {
		return err
	}
	r.empty = len(fields) == 0
	for _, name := range []string{"rope_type", "type"} {
		if value, found := fields[name]; found {
			r.noType = string(value) == "null"
			break
		}
	}
	for _, kind := range []string{fullAttention, slidingAttention} {
		value, found := fields[kind]
		if !found {
			continue
		}
		var one plain // one level: no objects inside the object
		if err := decodeFields(value, &one); err != nil {
			return usererr.New("%s: %w", kind, err)
		}
		if r.byLayer == nil {
			r.byLayer = make(map[string]*ropeJSON)
		}
		r.byLayer[kind] = (*ropeJSON)(&one)
	}
	return nil
}

// layersMayDiffer are the architectures whose layers transformers gives a type each.
var layersMayDiffer = []string{"qwen2", "qwen3"}

// Types of layers, as transformers calls them.
const (
	fullAttention    = "full_attention"
	slidingAttention = "sliding_attention"
)

// layerType is the type of all layers.
func (c *Config) layerType() string {
	if c.SlidingWindow > 0 {
		return slidingAttention
	}
	return fullAttention
}

// ParseConfig reads a config.json and, when there is one, a generation_config.json (nil otherwise).
// Special tokens beyond the vocabulary are left out, as [Files.Warnings] says of those. Errors name
// the field, what was wanted and what came; the caller adds the file.
func ParseConfig(configData, generationData []byte) (Config, error) {
	c, _, err := parseConfig(configData, generationData)
	return c, err
}

func parseConfig(configData, generationData []byte) (Config, []string, error) {
	var j configJSON
	if err := decodeFields(configData, &j); err != nil {
		return Config{}, nil, err
	}
	c, err := j.config()
	if err != nil {
		return Config{}, nil, err
	}
	tokens := j.tokensJSON
	if generationData != nil {
		var g tokensJSON
		if err := decodeFields(generationData, &g); err != nil {
			return Config{}, nil, usererr.New("generation_config.json: %w", err)
		}
		for _, f := range []struct{ to, from **tokenIDs }{{&tokens.BOS, &g.BOS}, {&tokens.EOS, &g.EOS}, {&tokens.Pad, &g.Pad}} {
			if *f.from != nil {
				*f.to = *f.from
			}
		}
	}
	warnings, err := tokens.fill(&c)
	if err != nil {
		return Config{}, nil, err
	}
	return c, append(j.warnings, warnings...), c.Validate()
}

func (j *configJSON) config() (Config, error) {
	// 10,000: transformers' default, left out of Llama-2's own file
	c := Config{RopeTheta: 10000, BOS: -1}
	if j.ModelType == nil {
		return c, usererr.New("field %q is absent, want %s", "model_type", oneOf(Architectures()))
	}
	arch, err := archOf(*j.ModelType)
	if err != nil {
		return c, err
	}
	c.Architecture = arch.Name
	for _, f := range []struct {
		name string
		from *number
		to   *int
	}{
		{"vocab_size", j.VocabSize, &c.VocabSize},
		{"hidden_size", j.HiddenSize, &c.HiddenSize},
		{"intermediate_size", j.IntermediateSize, &c.IntermediateSize},
		{"num_hidden_layers", j.Layers, &c.Layers},
		{"num_attention_heads", j.Heads, &c.Heads},
		{"max_position_embeddings", j.MaxPositions, &c.MaxPositions},
	} {
		if f.from == nil {
			return c, usererr.New("field %q is absent, want a whole number", f.name)
		}
		*f.to = int(*f.from)
	}
	if j.RMSNormEps == nil {
		return c, usererr.New("field %q is absent, want a number such as 1e-05", "rms_norm_eps")
	}
	c.RMSNormEps = *j.RMSNormEps
	c.KVHeads = c.Heads // transformers' default for Llama
	if j.KVHeads != nil {
		c.KVHeads = int(*j.KVHeads)
	} else if arch.NamesKVHeads {
		return c, usererr.New("field %q is absent, want a whole number", "num_key_value_heads")
	}
	if err := j.headDim(&c, arch.HeadDim); err != nil {
		return c, err
	}
	if j.TieEmbeddings != nil {
		c.TieEmbeddings = *j.TieEmbeddings
	}
	if arch.window != nil {
		if err := arch.window(j, &c); err != nil {
			return c, err
		}
	}
	if err := j.rope(&c); err != nil {
		return c, err
	}
	if err := j.checkLayerTypes(c); err != nil {
		return c, err
	}
	return c, j.checkUnsupported(arch)
}

// checkLayerTypes refuses layers that attend in another way than the rest: there is one window for
// all.
func (j *configJSON) checkLayerTypes(c Config) error {
	want := c.layerType()
	for i, kind := range j.LayerTypes {
		if kind != want {
			return usererr.New("layer_types[%d] = %q, want %q for every layer: layers of several kinds are not supported", i, kind, want)
		}
	}
	return nil
}

func (j *configJSON) headDim(c *Config, usual int) error {
	if j.HeadDim != nil {
		c.HeadDim = int(*j.HeadDim)
		return nil
	}
	if usual > 0 {
		c.HeadDim = usual
		return nil
	}
	if c.Heads < 1 || c.Heads > maxHeads {
		return usererr.New("num_attention_heads = %d, want 1 to %d", c.Heads, maxHeads)
	}
	if c.HiddenSize%c.Heads != 0 {
		return usererr.New("hidden_size = %d, want a multiple of num_attention_heads = %d (or a field head_dim)", c.HiddenSize, c.Heads)
	}
	c.HeadDim = c.HiddenSize / c.Heads
	return nil
}

// rope reads the rotary fields as version 5 of transformers does: rope_scaling, where it says
// anything, replaces rope_parameters as a whole; the rope_theta inside counts before the one at the
// top.
func (j *configJSON) rope(c *Config) error {
	if j.RopeTheta != nil {
		c.RopeTheta = *j.RopeTheta
	}
	r := j.RopeScaling
	if r == nil || r.empty {
		r = j.RopeParameters
	}
	if r == nil {
		return nil
	}
	if one := r.byLayer[c.layerType()]; one != nil && slices.Contains(layersMayDiffer, c.Architecture) {
		r = one
	} else if len(r.byLayer) > 0 {
		j.warnings = append(j.warnings, "rope_parameters by the type of layer are ignored, as transformers ignores them for this architecture")
	}
	if r.RopeTheta != nil {
		c.RopeTheta = *r.RopeTheta
	}
	if r.PartialRotaryFactor != nil && *r.PartialRotaryFactor != 1 {
		return usererr.New("partial_rotary_factor = %g, want 1", *r.PartialRotaryFactor)
	}
	kind := r.RopeType
	if kind == nil {
		kind = r.Type
	}
	switch {
	case r.noType:
		return usererr.New("rope_scaling without a type, want %q or %q", ropeLinear, ropeLlama3)
	case kind == nil && r.Factor != nil:
		j.warnings = append(j.warnings, fmt.Sprintf("rope_scaling names a factor of %g and no type: it is ignored, as transformers ignores it", *r.Factor))
		return nil
	case kind == nil, *kind == "default":
		return nil
	case *kind != ropeLinear && *kind != ropeLlama3:
		return usererr.New("rope_scaling type %q, want %q or %q", *kind, ropeLinear, ropeLlama3)
	}
	c.RopeScaling.Type = *kind
	for _, f := range []struct {
		name string
		from *float64
		to   *float64
		used bool
	}{
		{"factor", r.Factor, &c.RopeScaling.Factor, true},
		{"low_freq_factor", r.LowFreqFactor, &c.RopeScaling.LowFreqFactor, *kind == ropeLlama3},
		{"high_freq_factor", r.HighFreqFactor, &c.RopeScaling.HighFreqFactor, *kind == ropeLlama3},
	} {
		if !f.used {
			continue
		}
		if f.from == nil {
			return usererr.New("rope_scaling of type %q: field %q is absent, want a number", *kind, f.name)
		}
		*f.to = *f.from
	}
	// the field at the top has the last word, the whole context is the default
	if *kind == ropeLlama3 {
		c.RopeScaling.OriginalMaxPositions = c.MaxPositions
		for _, from := range []*number{r.OriginalMaxPositions, j.OriginalMaxPositions} {
			if from != nil {
				c.RopeScaling.OriginalMaxPositions = int(*from)
			}
		}
	}
	return nil
}

// checkUnsupported refuses what would silently change results: parts of transformers' Llama that
// this package does not compute.
func (j *configJSON) checkUnsupported(arch Arch) error {
	if j.HiddenAct != nil {
		if err := checkActivation(*j.HiddenAct); err != nil {
			return err
		}
	}
	for _, b := range []struct {
		name string
		set  *bool
		has  bool // the architecture has those, whatever this field says
	}{{"attention_bias", j.AttentionBias, arch.QKVBias}, {"mlp_bias", j.MLPBias, false}} {
		if b.set != nil && *b.set && !b.has {
			return usererr.New("%s = true, want false: biases are not supported", b.name)
		}
	}
	if j.PartialRotaryFactor != nil && *j.PartialRotaryFactor != 1 {
		return usererr.New("partial_rotary_factor = %g, want 1", *j.PartialRotaryFactor)
	}
	if q := strings.TrimSpace(string(j.Quantization)); q != "" && q != "null" && q != "{}" {
		return usererr.New("field %q: weights are quantized; want the model's float16, bfloat16 or float32 files (or a GGUF)", "quantization_config")
	}
	return nil
}

func (t *tokensJSON) fill(c *Config) (warnings []string, err error) {
	single := func(name string, from *tokenIDs) (int, error) {
		if from == nil {
			return -1, nil
		}
		if len(*from) != 1 {
			return -1, usererr.New("%s = %v, want one token id", name, []int(*from))
		}
		return (*from)[0], nil
	}
	ids := specialIDs{vocabulary: c.VocabSize}
	bos, err := single("bos_token_id", t.BOS)
	if err != nil {
		return nil, err
	}
	c.BOS = ids.known("bos_token_id", bos)
	if t.EOS != nil {
		c.EOS = nil
		for _, id := range *t.EOS {
			if id = ids.known("eos_token_id", id); id != -1 {
				c.EOS = append(c.EOS, id)
			}
		}
	}
	pad, err := single("pad_token_id", t.Pad)
	if err != nil {
		return nil, err
	}
	c.PadID = padOr(ids.known("pad_token_id", pad), c.EOS)
	return ids.warnings, nil
}

// specialIDs checks special tokens against the vocabulary. Ids outside are no reason to refuse a
// model: they can neither be generated nor change a result.
type specialIDs struct {
	vocabulary int
	warnings   []string
}

// known is the id, or -1 (none) when the vocabulary does not have it. Some files write -1 for none.
func (s *specialIDs) known(name string, id int) int {
	if id >= 0 && id < s.vocabulary || id == -1 {
		return id
	}
	s.warnings = append(s.warnings, fmt.Sprintf("%s = %d is ignored: the vocabulary ends at %d", name, id, s.vocabulary-1))
	return -1
}

// padOr applies the rule of Config.PadID.
func padOr(pad int, eos []int) int {
	switch {
	case pad != -1:
		return pad
	case len(eos) > 0:
		return eos[0]
	default:
		return 0
	}
}
