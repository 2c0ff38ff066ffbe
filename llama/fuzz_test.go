package llama

import (
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"

	"github.com/kvqbook/kvqbook/internal/testbackend"
	"github.com/kvqbook/kvqbook/internal/usererr"
)

// wideConfig and wideMetadata are a model whose rows are whole blocks, so that its weights can stay
// packed.
func wideConfig() map[string]any {
	return with(fakeConfig(), map[string]any{"hidden_size": 64, "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1, "num_hidden_layers": 1})
}

func wideMetadata() map[string]any {
	return with(fakeMetadata(), map[string]any{"llama.embedding_length": uint32(64), "llama.feed_forward_length": uint32(32), "llama.block_count": uint32(1),
		"llama.attention.head_count": uint32(2), "llama.attention.head_count_kv": uint32(1), "llama.rope.dimension_count": uint32(32)})
}

// FuzzLoadGGUF loads models from files of any content onto a device, as plain weights and packed:
// it is refused in one line, or the model is there. Package modelfile fuzzes what comes before.
func FuzzLoadGGUF(f *testing.F) {
	backend := testbackend.XLA(f)
	list := fakeTensors(f, wideConfig(), dtypes.Float32, true)
	f.Add(ggufBytes(f, wideMetadata(), list))
	for _, kinds := range [][2]string{{"Q4_1", "Q8_0"}, {"Q8_0", "Q8_0"}} {
		packed := append([]fakeTensor(nil), list...)
		for i, one := range packed {
			switch {
			case len(one.Dims) != 2:
			case strings.HasPrefix(one.Name, "token_embd") || strings.HasPrefix(one.Name, "output"):
				packed[i] = one.Pack(kinds[1])
			default:
				packed[i] = one.Pack(kinds[0])
			}
		}
		data := ggufBytes(f, wideMetadata(), packed)
		f.Add(data)
		f.Add(data[:len(data)-9])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		files, err := Open(writeFile(t, data, t.TempDir(), "fuzz.gguf"))
		if err != nil {
			return // FuzzGGUF looks at these
		}
		for _, o := range []LoadOptions{{Weights: PackedWeights}, {DType: dtypes.Float16, Weights: PlainWeights}} {
			model, err := files.Load(backend, o)
			if err != nil {
				if !usererr.Is(err) || strings.ContainsAny(err.Error(), "\n\r") {
					t.Errorf("%+v: %q, want one line of bad input", o, err)
				}
				continue
			}
			if model.Config().VocabSize != files.Config().VocabSize {
				t.Errorf("the model has another configuration than its files")
			}
			model.Finalize()
		}
	})
}
