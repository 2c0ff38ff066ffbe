package modelfile_test

import (
	"fmt"
	"log"

	"github.com/kvqbook/kvqbook/llama/modelfile"
)

// What a config.json says of a model, with the defaults of the fields that it leaves out, and the
// weights that follow from it.
func ExampleParseConfig() {
	config, err := modelfile.ParseConfig([]byte(`{
		"model_type": "llama", "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008,
		"num_hidden_layers": 32, "num_attention_heads": 32, "rms_norm_eps": 1e-5, "max_position_embeddings": 4096}`), nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(config.ParameterCount(), "parameters,", config.KVHeads, "key/value heads of", config.HeadDim)
	weights := config.Weights()
	fmt.Println(len(weights), "weights, the first", weights[0].HF, weights[0].Dims, "or", weights[0].GGUF)

	_, err = modelfile.ParseConfig([]byte(`{"model_type": "gpt2"}`), nil)
	fmt.Println(err)
	// Output:
	// 6738415616 parameters, 32 key/value heads of 128
	// 291 weights, the first model.embed_tokens.weight [32000 4096] or token_embd.weight
	// architecture "gpt2", want "llama", "mistral", "qwen2" or "qwen3"
}
