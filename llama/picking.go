package llama

import (
	"math/rand/v2"
	"slices"

	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/tokenizer"
)

// picking is the host's side of picking tokens: it turns settings into the inputs of pickKind.
type picking struct {
	kind   pickKind
	gc     GenerateConfig
	eos    []tokenizer.Token // kind.endings of them, -1 where unused
	vocab  int
	random []*rand.Rand // one per row; nil when greedy
}

func newPicking(gc GenerateConfig, c Config, batch int) picking {
	gc = gc.resolved(c)
	p := picking{gc: gc, vocab: c.VocabSize}
	p.eos = slices.Clone(gc.EOS)
	// A multiple of four, so that one more ending does not need another graph.
	for len(p.eos) == 0 || len(p.eos)%4 != 0 {
		p.eos = append(p.eos, -1)
	}
	p.kind.endings = len(p.eos)
	if gc.DoSample {
		p.kind.sample = true
		p.kind.topK = gc.TopK > 0 && gc.TopK < c.VocabSize
		p.kind.topP = gc.TopP < 1
		for row := range batch {
			p.random = append(p.random, rand.New(rand.NewPCG(uint64(gc.Seed), uint64(row))))
		}
	}
	return p
}

// inputs are the arguments for the next n picks, in the order of pickKind.shapes; generated counts
// the new tokens before them, and size is the number of picks that the graph has room for.
//
// Random numbers come from the host, because then they depend on seed, row and token alone: not on
// how many rows there are, how tokens fall into blocks, or whose random generator the device has.
func (p *picking) inputs(generated, n, size int) []any {
	in := []any{p.eos, []int32{int32(p.gc.MinNewTokens)}, []int32{int32(generated)}}
	if !p.kind.sample {
		return in
	}
	shares := make([]float32, size*len(p.random))
	for i := range n * len(p.random) {
		shares[i] = float32(p.random[i%len(p.random)].Uint32()>>8+1) / (1 << 24) // (0, 1], exact in float32
	}
	return append(in, []float32{float32(p.gc.Temperature)}, []int32{int32(max(1, p.gc.TopK))}, []float32{float32(p.gc.TopP)},
		tensors.FromFlatDataAndDimensions(shares, size, len(p.random)))
}

// ends tells whether a token ends a row.
func (p *picking) ends(token tokenizer.Token) bool {
	return token >= 0 && slices.Contains(p.eos, token)
}
