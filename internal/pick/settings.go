package pick

import (
	"math/rand/v2"
	"slices"

	"github.com/gomlx/gomlx/core/tensors"
)

// Settings are those of transformers, with nothing left open.
type Settings struct {
	EOS    []int32 // tokens that end a row
	MinNew int     // no row ends before it has so many new tokens

	Sample      bool // draw at random, with what follows; else the most likely token
	Temperature float64
	TopK        int     // 0: no limit
	TopP        float64 // 1: no limit
	Seed        int64
}

// Picker is the host's side of picking tokens: it turns settings into the inputs of a graph of its
// Kind. Not safe for concurrent use.
type Picker struct {
	Kind     Kind
	settings Settings
	eos      []int32      // Kind.Endings of them, -1 where unused
	random   []*rand.Rand // one per row; nil when greedy
}

// New makes a picker for rows of a vocabulary. Where its size is not known yet, any number above
// TopK will do.
func New(s Settings, rows, vocabulary int) *Picker {
	p := &Picker{settings: s, eos: slices.Clone(s.EOS)}
	// A multiple of four, so that one more ending does not need another graph.
	for len(p.eos) == 0 || len(p.eos)%4 != 0 {
		p.eos = append(p.eos, -1)
	}
	p.Kind.Endings = len(p.eos)
	if s.Sample {
		p.Kind.Sample = true
		p.Kind.TopK = s.TopK > 0 && s.TopK < vocabulary
		p.Kind.TopP = s.TopP < 1
		for row := range rows {
			p.random = append(p.random, rand.New(rand.NewPCG(uint64(s.Seed), uint64(row))))
		}
	}
	return p
}

// Inputs are the arguments for the next n picks, in the order of Kind.Shapes; generated counts the
// new tokens before them, and size is the number of picks that the graph has room for.
//
// Random numbers come from the host, because then they depend on seed, row and token alone: not on
// how many rows there are, how tokens fall into blocks, or whose random generator the device has.
func (p *Picker) Inputs(generated, n, size int) []any {
	in := []any{p.eos, []int32{int32(p.settings.MinNew)}, []int32{int32(generated)}}
	if !p.Kind.Sample {
		return in
	}
	shares := make([]float32, size*len(p.random))
	for i := range n * len(p.random) {
		shares[i] = float32(p.random[i%len(p.random)].Uint32()>>8+1) / (1 << 24) // (0, 1], exact in float32
	}
	return append(in, []float32{float32(p.settings.Temperature)}, []int32{int32(max(1, p.settings.TopK))},
		[]float32{float32(p.settings.TopP)}, tensors.FromFlatDataAndDimensions(shares, size, len(p.random)))
}

// Ends tells whether a token ends a row.
func (p *Picker) Ends(token int32) bool {
	return token >= 0 && slices.Contains(p.eos, token)
}
