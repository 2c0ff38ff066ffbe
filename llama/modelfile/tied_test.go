package modelfile

import (
	"slices"
	"testing"

	"github.com/gomlx/compute/dtypes"
)

// A configuration that ties the head to the embeddings, and a file that has one: see tieHead. What
// transformers makes of such files is in TestFoldersOfTransformers too.
func TestTiedHead(t *testing.T) {
	config := with(fakeConfig(), map[string]any{"tie_word_embeddings": true})
	untied := fakeTensors(t, fakeConfig(), dtypes.Float32, false)
	at := func(name string) int {
		return slices.IndexFunc(untied, func(x fakeTensor) bool { return x.Name == name })
	}
	embeddings, head := untied[at(embeddingsTensor)], untied[at(headTensor)]
	rest := slices.DeleteFunc(slices.Clone(untied), func(x fakeTensor) bool { return x.Name == headTensor || x.Name == embeddingsTensor })
	open := func(more ...fakeTensor) *Files {
		return mustOpen(t, fakeFolder(t, config, append(slices.Clone(rest), more...)))
	}
	named := func(x fakeTensor, name string) fakeTensor { x.Name = name; return x }

	f := open(embeddings, head)
	if f.Config().TieEmbeddings {
		t.Error("a head with other values was tied")
	}
	wantWarnings(t, f, []string{"lm_head.weight that differs"})
	last := slices.Clone(embeddings.Data) // as far as the last element
	last[len(last)-1] ^= 0x40
	if open(embeddings, fakeTensor{Name: headTensor, DType: dtypes.Float32, Dims: embeddings.Dims, Data: last}).Config().TieEmbeddings {
		t.Error("a head whose last value differs was tied")
	}
	f = open(embeddings, named(embeddings, headTensor))
	if !f.Config().TieEmbeddings {
		t.Error("the same head was not tied")
	}
	wantWarnings(t, f, nil)
	f = open(named(embeddings, headTensor)) // alone
	if got, want := mustRead(t, f, As{DType: dtypes.Float32})[embeddingsTensor], mustRead(t, open(embeddings), As{DType: dtypes.Float32})[embeddingsTensor]; !slices.Equal(got, want) {
		t.Errorf("a head alone gives embeddings %v, want %v", got, want)
	}
	// in another element type, with the same values
	half := fakeTensors(t, fakeConfig(), dtypes.BFloat16, false)[at(embeddingsTensor)]
	wide := fakeTensor{Name: headTensor, DType: dtypes.Float32, Dims: half.Dims, Data: make([]byte, 2*len(half.Data))}
	widenBrain(wide.Data, half.Data)
	if !open(half, wide).Config().TieEmbeddings {
		t.Error("the same head as float32 was not tied")
	}
	narrow := head
	narrow.Dims, narrow.Data = []int{10, head.Dims[1]}, head.Data[:len(head.Data)/head.Dims[0]*10]
	_, err := Open(fakeFolder(t, config, append(slices.Clone(rest), embeddings, narrow)))
	wantLine(t, err, "lm_head.weight", "[10 24]")
}
