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
	MinP        float64 // 0: no limit
	Seed        int64

	Penalty float64 // for tokens of the text so far; 1: none
	Window  int     // how many of the newest tokens these are; 0: all
}

// Picker is the host's side of picking tokens: it turns settings into the inputs of a graph of its
// Kind. Not safe for concurrent use.
type Picker struct {
	Kind       Kind
	settings   Settings
	eos        []int32      // Kind.Endings of them, -1 where unused
	random     []*rand.Rand // one per row; nil when greedy
	shares     [][]float32  // what they have given so far
	texts      [][]int32    // of each row, see Saw; nil without a penalty
	vocabulary int
}

// New makes a picker for rows of a vocabulary. Where its size is not known yet, any number above
// TopK will do.
func New(s Settings, rows, vocabulary int) *Picker {
	p := &Picker{settings: s, eos: slices.Clone(s.EOS), vocabulary: vocabulary}
	// A multiple of four, so that one more ending does not need another graph.
	for len(p.eos) == 0 || len(p.eos)%4 != 0 {
		p.eos = append(p.eos, -1)
	}
	p.Kind.Endings = len(p.eos)
	if s.Sample {
		p.Kind.Sample = true
		p.Kind.TopK = s.TopK > 0 && s.TopK < vocabulary
		p.Kind.TopP = s.TopP < 1
		p.Kind.MinP = s.MinP > 0
		for row := range rows {
			p.shares = append(p.shares, nil)
			p.random = append(p.random, rand.New(rand.NewPCG(uint64(s.Seed), uint64(row))))
		}
	}
	if s.Penalty != 0 && s.Penalty != 1 {
		p.Kind.Penalty, p.Kind.Window = vocabulary, s.Window
		p.texts = make([][]int32, rows)
	}
	return p
}

// Saw tells that these tokens stand in a row's text, before the next pick: the prompt, and what was
// picked since.
func (p *Picker) Saw(row int, tokens ...int32) {
	if p.texts != nil {
		p.texts[row] = append(p.texts[row], tokens...)
	}
}

// Inputs are the arguments for the next n picks, in the order of Kind.Shapes; generated counts the
// new tokens before them, and size is the number of picks that the graph has room for.
//
// Random numbers come from the host, because then they depend on seed, row and token alone: not on
// how many rows there are, how tokens fall into blocks, or whose random generator the device has.
func (p *Picker) Inputs(generated, n, size int) []any {
	in := []any{p.eos, []int32{int32(p.settings.MinNew)}, []int32{int32(generated)}}
	if p.Kind.Sample {
		shares := make([]float32, size*len(p.random))
		for i := range n * len(p.random) {
			shares[i] = p.share(i%len(p.random), generated+i/len(p.random))
		}
		in = append(in, []float32{single(p.settings.Temperature)}, []int32{int32(max(1, p.settings.TopK))},
			[]float32{single(p.settings.TopP)}, tensors.FromFlatDataAndDimensions(shares, size, len(p.random)))
	}
	if p.Kind.MinP {
		in = append(in, []float32{float32(p.settings.MinP)})
	}
	if p.Kind.Penalty > 0 {
		in = append(append(in, []float32{single(p.settings.Penalty)}), p.Kind.historyOf(p.texts)...)
	}
	return in
}

// single is a setting above 0 as the graph has it. It stays so far above 0 that no logit divided by
// it is infinite, nor 0 after rounding: the most likely token is then the only one left.
func single(x float64) float32 {
	const least = 1e-30
	return float32(max(x, least))
}

// share is a row's random number for the new token of this index, in (0, 1], exact in float32. They
// are drawn in order and kept: a call of a loop may make fewer tokens than it has numbers for.
func (p *Picker) share(row, index int) float32 {
	for len(p.shares[row]) <= index {
		p.shares[row] = append(p.shares[row], float32(p.random[row].Uint32()>>8+1)/(1<<24))
	}
	return p.shares[row][index]
}

// historyOf are the graph inputs of a History.
func (k Kind) historyOf(texts [][]int32) []any {
	counts, recent := make([]int32, len(texts)*k.Penalty), make([]int32, len(texts)*k.Window)
	for row, text := range texts {
		if k.Window > 0 {
			ring := recent[row*k.Window : (row+1)*k.Window]
			text = text[max(0, len(text)-k.Window):]
			for i := range ring[:len(ring)-len(text)] {
				ring[i] = -1
			}
			copy(ring[len(ring)-len(text):], text)
		}
		for _, token := range text {
			counts[row*k.Penalty+int(token)]++
		}
	}
	in := []any{tensors.FromFlatDataAndDimensions(counts, len(texts), k.Penalty)}
	if k.Window > 0 {
		in = append(in, tensors.FromFlatDataAndDimensions(recent, len(texts), k.Window))
	}
	return in
}

// Ends tells whether a token ends a row.
func (p *Picker) Ends(token int32) bool {
	return token >= 0 && slices.Contains(p.eos, token)
}
