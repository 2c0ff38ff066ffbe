package modelfile

import (
	"encoding/json"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kvqbook/kvqbook/internal/usererr"
)

// Llama-2-7b-chat-hf's config.json and generation_config.json, as published (neither names
// rope_theta nor head_dim).
const (
	llama2Config = `{"_name_or_path": "meta-llama/Llama-2-7b-chat-hf", "architectures": ["LlamaForCausalLM"], "bos_token_id": 1,
		"eos_token_id": 2, "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 11008,
		"max_position_embeddings": 4096, "model_type": "llama", "num_attention_heads": 32, "num_hidden_layers": 32,
		"num_key_value_heads": 32, "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_scaling": null,
		"tie_word_embeddings": false, "torch_dtype": "float16", "transformers_version": "4.32.0.dev0", "use_cache": true,
		"vocab_size": 32000}`
	llama2Generation = `{"bos_token_id": 1, "do_sample": true, "eos_token_id": 2, "pad_token_id": 0, "temperature": 0.6,
		"max_length": 4096, "top_p": 0.9, "transformers_version": "4.32.0.dev0"}`
)

func TestParseConfigPublished(t *testing.T) {
	llama2 := Config{Architecture: "llama", VocabSize: 32000, HiddenSize: 4096, IntermediateSize: 11008, Layers: 32, Heads: 32,
		KVHeads: 32, HeadDim: 128, RopeTheta: 10000, RMSNormEps: 1e-5, MaxPositions: 4096, BOS: 1, EOS: []int{2}, PadID: 0}
	for _, c := range []struct {
		name, config, generation string
		want                     Config
	}{
		{"Llama-2-7b-chat", llama2Config, llama2Generation, llama2},
		{
			"Llama-3.2-1B-Instruct",
			`{"architectures": ["LlamaForCausalLM"], "attention_bias": false, "bos_token_id": 128000,
			"eos_token_id": [128001, 128008, 128009], "head_dim": 64, "hidden_act": "silu", "hidden_size": 2048,
			"intermediate_size": 8192, "max_position_embeddings": 131072, "mlp_bias": false, "model_type": "llama",
			"num_attention_heads": 32, "num_hidden_layers": 16, "num_key_value_heads": 8, "rms_norm_eps": 1e-05,
			"rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
			"original_max_position_embeddings": 8192, "rope_type": "llama3"}, "rope_theta": 500000.0,
			"tie_word_embeddings": true, "vocab_size": 128256}`,
			`{"bos_token_id": 128000, "eos_token_id": [128001, 128008, 128009]}`,
			Config{Architecture: "llama", VocabSize: 128256, HiddenSize: 2048, IntermediateSize: 8192, Layers: 16, Heads: 32,
				KVHeads: 8, HeadDim: 64, RopeTheta: 500000, RopeScaling: RopeScaling{Type: "llama3", Factor: 32, LowFreqFactor: 1,
					HighFreqFactor: 4, OriginalMaxPositions: 8192}, RMSNormEps: 1e-5, MaxPositions: 131072, TieEmbeddings: true,
				BOS: 128000, EOS: []int{128001, 128008, 128009}, PadID: 128001},
		},
		{
			"Mistral-7B-v0.1",
			`{"architectures": ["MistralForCausalLM"], "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu",
			"hidden_size": 4096, "intermediate_size": 14336, "max_position_embeddings": 32768, "model_type": "mistral",
			"num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8, "rms_norm_eps": 1e-05,
			"rope_theta": 10000.0, "sliding_window": 4096, "tie_word_embeddings": false, "vocab_size": 32000}`,
			"",
			Config{Architecture: "mistral", VocabSize: 32000, HiddenSize: 4096, IntermediateSize: 14336, Layers: 32, Heads: 32,
				KVHeads: 8, HeadDim: 128, RopeTheta: 10000, RMSNormEps: 1e-5, MaxPositions: 32768, SlidingWindow: 4096, BOS: 1,
				EOS: []int{2}, PadID: 2},
		},
		{
			"a Llama by transformers 5, which moved the rotary fields",
			`{"model_type": "llama", "vocab_size": 256, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
			"num_attention_heads": 4, "max_position_embeddings": 512, "rms_norm_eps": 1e-05,
			"rope_parameters": {"rope_theta": 20000.0, "rope_type": "linear", "factor": 2.0}}`,
			"",
			Config{Architecture: "llama", VocabSize: 256, HiddenSize: 64, IntermediateSize: 128, Layers: 2, Heads: 4, KVHeads: 4,
				HeadDim: 16, RopeTheta: 20000, RopeScaling: RopeScaling{Type: "linear", Factor: 2}, RMSNormEps: 1e-5,
				MaxPositions: 512, BOS: -1},
		},
	} {
		var generation []byte
		if c.generation != "" {
			generation = []byte(c.generation)
		}
		got, err := ParseConfig([]byte(c.config), generation)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

// 6,738,415,616 is the published number of parameters of Llama-2-7B.
func TestParameterCount(t *testing.T) {
	c, err := ParseConfig([]byte(llama2Config), nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := c.ParameterCount(); got != 6_738_415_616 {
		t.Errorf("%d parameters, want 6738415616", got)
	}
}

// Mistral's window: a number, null for none, and transformers' 4096 where the file is silent. A
// Llama has none.
func TestSlidingWindow(t *testing.T) {
	for _, c := range []struct {
		kind  string
		value any
		want  int
	}{
		{"mistral", 7, 7}, {"mistral", nil, 0}, {"mistral", absent, 4096}, {"llama", 7, 0}, {"qwen2", 7, 0}, {"qwen3", 7, 0},
	} {
		got, err := ParseConfig(mustJSON(t, with(fakeConfig(), map[string]any{"model_type": c.kind, "sliding_window": c.value})), nil)
		if err != nil || got.SlidingWindow != c.want {
			t.Errorf("%s with %v: window %d, error %v; want %d", c.kind, c.value, got.SlidingWindow, err, c.want)
		}
	}
}

// Qwen's window: only where use_sliding_window says so, and in the layers from max_window_layers
// on, of which there are all or none.
func TestSlidingWindowOfQwen(t *testing.T) {
	for _, c := range []struct {
		use, first, window any
		want               int
	}{
		{true, 0, 7, 7}, {true, 0, absent, 4096}, {true, 0, nil, 0}, {true, 2, 7, 0}, {true, absent, 7, 0}, {false, 0, 7, 0}, {absent, 0, 7, 0},
	} {
		got, err := ParseConfig(mustJSON(t, with(fakeConfig(), map[string]any{
			"model_type": "qwen2", "use_sliding_window": c.use, "max_window_layers": c.first, "sliding_window": c.window,
		})), nil)
		if err != nil || got.SlidingWindow != c.want {
			t.Errorf("%v: window %d, error %v", c, got.SlidingWindow, err)
		}
	}
}

// Qwen3's heads are 128 wide unless the file says otherwise, as in transformers; biases of Qwen2
// are no setting.
func TestQwenDefaults(t *testing.T) {
	three, err := ParseConfig(mustJSON(t, with(fakeConfig(), map[string]any{"model_type": "qwen3"})), nil)
	if err != nil || three.HeadDim != 128 {
		t.Errorf("qwen3: head_dim %d, error %v; want 128", three.HeadDim, err)
	}
	two, err := ParseConfig(mustJSON(t, with(fakeConfig(), map[string]any{"model_type": "qwen2", "attention_bias": true})), nil)
	if err != nil || two.HeadDim != 4 {
		t.Errorf("qwen2: head_dim %d, error %v; want 4", two.HeadDim, err)
	}
}

func TestParseConfigRefuses(t *testing.T) {
	linear := map[string]any{"type": "linear"}
	for _, c := range []struct {
		name   string
		change map[string]any
		want   []string
	}{
		{"other model", map[string]any{"model_type": "gpt2"}, []string{`architecture "gpt2"`, `want "llama"`}},
		{"no model", map[string]any{"model_type": absent}, []string{`"model_type" is absent`}},
		{"absent", map[string]any{"hidden_size": absent}, []string{`"hidden_size" is absent`}},
		{"null", map[string]any{"num_hidden_layers": nil}, []string{`"num_hidden_layers" is absent`}},
		{"no eps", map[string]any{"rms_norm_eps": absent}, []string{`"rms_norm_eps" is absent`}},
		{"no heads", map[string]any{"num_attention_heads": 0}, []string{"num_attention_heads = 0", "want 1 to"}},
		{"negative", map[string]any{"vocab_size": -5}, []string{"vocab_size = -5"}},
		{"huge", map[string]any{"intermediate_size": 1e12}, []string{"intermediate_size = 1000000000000"}},
		{"beyond integers", map[string]any{"hidden_size": 1e300}, []string{`"hidden_size"`, "whole number"}},
		{"fraction", map[string]any{"num_hidden_layers": 2.5}, []string{`"num_hidden_layers"`, "2.5", "whole number"}},
		{"text", map[string]any{"hidden_size": "wide"}, []string{`"hidden_size"`, `"wide"`, "whole number"}},
		{"text for a number", map[string]any{"rope_theta": "x"}, []string{`"rope_theta"`, "a number"}},
		{"number for a truth", map[string]any{"tie_word_embeddings": 1}, []string{`"tie_word_embeddings"`, "true or false"}},
		{"indivisible", map[string]any{"hidden_size": 25}, []string{"hidden_size = 25", "multiple of num_attention_heads = 6"}},
		{"odd heads", map[string]any{"hidden_size": 18}, []string{"head_dim = 3", "even"}},
		{"kv heads", map[string]any{"num_key_value_heads": 4}, []string{"num_key_value_heads = 4", "divisor of num_attention_heads = 6"}},
		{"kv heads of Mistral", map[string]any{"model_type": "mistral", "num_key_value_heads": absent}, []string{"num_key_value_heads"}},
		{"eps", map[string]any{"rms_norm_eps": 0}, []string{"rms_norm_eps = 0"}},
		{"theta", map[string]any{"rope_theta": -1}, []string{"rope_theta = -1"}},
		{"activation", map[string]any{"hidden_act": "gelu"}, []string{`hidden_act = "gelu"`, `"silu"`}},
		{"bias", map[string]any{"attention_bias": true}, []string{"attention_bias = true", "not supported"}},
		{"bias of the feed-forward part", map[string]any{"mlp_bias": true}, []string{"mlp_bias = true", "not supported"}},
		{"mixture of experts", map[string]any{"model_type": "mixtral"}, []string{`architecture "mixtral"`, `want "llama", "mistral", "qwen2" or "qwen3"`}},
		{"partial rotary", map[string]any{"partial_rotary_factor": 0.5}, []string{"partial_rotary_factor = 0.5"}},
		{"quantized", map[string]any{"quantization_config": map[string]any{"bits": 4}}, []string{"quantization_config", "float16"}},
		{"scaling type", map[string]any{"rope_scaling": map[string]any{"type": "yarn", "factor": 2}}, []string{`"yarn"`, "linear"}},
		{"scaling by the length so far", map[string]any{"rope_scaling": map[string]any{"rope_type": "dynamic", "factor": 2}}, []string{`"dynamic"`, "linear"}},
		{"scaling of Phi", map[string]any{"rope_scaling": map[string]any{"rope_type": "longrope", "factor": 2}}, []string{`"longrope"`, "linear"}},
		{"scaling by GGUF's name", map[string]any{"rope_scaling": map[string]any{"rope_type": "factors", "factor": 2}}, []string{`"factors"`}},
		{"scaling without factor", map[string]any{"rope_scaling": linear}, []string{`"factor" is absent`}},
		{"scaling of type null", map[string]any{"rope_scaling": map[string]any{"rope_type": nil, "factor": 2}}, []string{"without a type"}},
		{"scaling by a text", map[string]any{"rope_scaling": "linear"}, []string{"rope_scaling"}},
		{"shrinking", map[string]any{"rope_scaling": map[string]any{"type": "linear", "factor": 0.5}}, []string{"factor = 0.5"}},
		{"half of llama3", map[string]any{"rope_scaling": map[string]any{"rope_type": "llama3", "factor": 8, "low_freq_factor": 1}},
			[]string{`"high_freq_factor" is absent`}},
		{"eos text", map[string]any{"eos_token_id": "</s>"}, []string{`"eos_token_id"`, "token id"}},
		{"window", map[string]any{"model_type": "mistral", "sliding_window": 0}, []string{"sliding_window = 0"}},
		{"windows in some layers", map[string]any{"model_type": "mistral", "sliding_window": 8, "layer_types": []string{"sliding_attention", "full_attention"}},
			[]string{`layer_types[1] = "full_attention", want "sliding_attention"`}},
		{"windows in some layers of Qwen", map[string]any{"model_type": "qwen2", "use_sliding_window": true, "max_window_layers": 1},
			[]string{"max_window_layers = 1", "want 0 or at least num_hidden_layers = 2"}},
		{"kv heads of Qwen", map[string]any{"model_type": "qwen3", "num_key_value_heads": absent}, []string{"num_key_value_heads"}},
		{"bias of Qwen3", map[string]any{"model_type": "qwen3", "attention_bias": true}, []string{"attention_bias = true", "not supported"}},
		{"scaling of Qwen", map[string]any{"model_type": "qwen2", "rope_scaling": map[string]any{"type": "yarn", "factor": 4}},
			[]string{`rope_scaling type "yarn", want "linear" or "llama3"`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := ParseConfig(mustJSON(t, with(fakeConfig(), c.change)), nil)
			wantLine(t, err, c.want...)
		})
	}
	_, err := ParseConfig([]byte(`{"model_type": "llama", `), nil)
	wantLine(t, err, "JSON")
	_, err = ParseConfig(mustJSON(t, fakeConfig()), []byte(`{"eos_token_id": true}`))
	wantLine(t, err, "generation_config.json", "eos_token_id")
}

// Whatever the bytes, parsing gives one line, or a configuration that Validate accepts, that keeps
// every promise of its comments and whose list of parameters can be made.
func FuzzConfig(f *testing.F) {
	base, err := json.Marshal(fakeConfig())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(base, []byte(nil))
	f.Add([]byte(llama2Config), []byte(llama2Generation))
	f.Add([]byte(`{"model_type":"mistral","sliding_window":null,"rope_scaling":{"rope_type":"llama3"}}`), []byte(`{"eos_token_id":[1,2]}`))
	f.Add([]byte(`{"model_type":"llama","num_attention_heads":-9223372036854775808}`), []byte(`[]`))
	f.Fuzz(func(t *testing.T, config, generation []byte) {
		c, err := ParseConfig(config, generation)
		if err != nil {
			if !usererr.Is(err) {
				t.Errorf("not marked as bad input: %v", err)
			}
			return
		}
		if err := c.Validate(); err != nil {
			t.Errorf("parsed but not valid: %v", err)
		}
		if c.Heads%c.KVHeads != 0 || c.HeadDim%2 != 0 || c.HeadDim < 2 || math.IsNaN(c.RopeTheta+c.RMSNormEps+c.RopeScaling.Factor) {
			t.Errorf("absurd configuration accepted: %+v", c)
		}
		if c.Layers < 100 && c.ParameterCount() <= 0 {
			t.Errorf("%d parameters", c.ParameterCount())
		}
	})
}
