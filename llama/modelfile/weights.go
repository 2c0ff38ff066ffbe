package modelfile

import (
	"fmt"
	"strings"
)

// Role is what a tensor of the model is for. The model's graph knows weights by it.
type Role int

// Roles, in the order of the model's computation.
const (
	Embed Role = iota
	AttnNorm
	QKV
	QKVBias
	QNorm
	KNorm
	Output
	MLPNorm
	GateUp
	Down
	FinalNorm
	Head

	// Roles is the number of them.
	Roles = iota
)

// Whole is the Cut of a tensor that every device has all of.
const Whole = -1

// Element types of GGUF files in which tensors can stay packed: 32 codes with a scale, those of 4
// bits with a minimum too.
const (
	Q4 = "Q4_1" // matrices
	Q8 = "Q8_0" // embeddings that are the head too
)

// table lists every weight of a model, in the order of its computation. This order, these names and
// these shapes are written nowhere else: files are checked, loaded, joined, shared by devices and
// counted by it.
//
// A line is one tensor of the model's graph. Its parts are tensors of the files; several multiply
// the same vector and are joined, because one product over more rows reads memory faster than three
// small ones.
var table = [Roles]line{
	Embed: {parts: []part{{"model.embed_tokens.weight", "token_embd.weight", vocabByHidden, nil}}, cut: Whole, packs: Q8},

	AttnNorm: {parts: []part{{"model.layers.%d.input_layernorm.weight", "blk.%d.attn_norm.weight", hidden, nil}}, cut: Whole},
	QKV: {parts: []part{
		{"model.layers.%d.self_attn.q_proj.weight", "blk.%d.attn_q.weight", queriesByHidden, queryHeads},
		{"model.layers.%d.self_attn.k_proj.weight", "blk.%d.attn_k.weight", keysByHidden, kvHeads},
		{"model.layers.%d.self_attn.v_proj.weight", "blk.%d.attn_v.weight", keysByHidden, nil},
	}, runs: byKeyHeads, cut: 0, packs: Q4},
	QKVBias: {parts: []part{
		{"model.layers.%d.self_attn.q_proj.bias", "blk.%d.attn_q.bias", queries, queryHeads},
		{"model.layers.%d.self_attn.k_proj.bias", "blk.%d.attn_k.bias", keys, kvHeads},
		{"model.layers.%d.self_attn.v_proj.bias", "blk.%d.attn_v.bias", keys, nil},
	}, runs: byKeyHeads, cut: 0, only: func(c Config) bool { return c.Arch().QKVBias }},
	QNorm:  {parts: []part{{"model.layers.%d.self_attn.q_norm.weight", "blk.%d.attn_q_norm.weight", headDim, nil}}, cut: Whole, only: hasHeadNorms},
	KNorm:  {parts: []part{{"model.layers.%d.self_attn.k_norm.weight", "blk.%d.attn_k_norm.weight", headDim, nil}}, cut: Whole, only: hasHeadNorms},
	Output: {parts: []part{{"model.layers.%d.self_attn.o_proj.weight", "blk.%d.attn_output.weight", hiddenByQueries, nil}}, cut: 1, packs: Q4},

	MLPNorm: {parts: []part{{"model.layers.%d.post_attention_layernorm.weight", "blk.%d.ffn_norm.weight", hidden, nil}}, cut: Whole},
	GateUp: {parts: []part{
		{"model.layers.%d.mlp.gate_proj.weight", "blk.%d.ffn_gate.weight", innerByHidden, nil},
		{"model.layers.%d.mlp.up_proj.weight", "blk.%d.ffn_up.weight", innerByHidden, nil},
	}, runs: byDevices, cut: 0, packs: Q4},
	Down: {parts: []part{{"model.layers.%d.mlp.down_proj.weight", "blk.%d.ffn_down.weight", hiddenByInner, nil}}, cut: 1, packs: Q4},

	FinalNorm: {parts: []part{{"model.norm.weight", "output_norm.weight", hidden, nil}}, cut: Whole},
	// The head is not cut along the vocabulary: XLA finds the best token from pieces too, but in
	// several small exchanges of their own, a dozen where tokens are drawn, which cost more than
	// reading a head of 32,000 rows.
	Head: {parts: []part{{"lm_head.weight", "output.weight", vocabByHidden, nil}}, cut: Whole, only: func(c Config) bool { return !c.TieEmbeddings }},
}

// line is one tensor of the model's graph.
type line struct {
	parts []part
	// runs is in how many runs the rows of several parts are interleaved; see Tensor.Dims.
	runs func(c Config, devices int) int
	// cut is the axis along which devices share the tensor, or Whole.
	cut int
	// packs is the element type of GGUF files in which the tensor can stay packed; "" stands for
	// none.
	packs string
	// only says which models have the tensor; nil: all.
	only func(Config) bool
}

// part is a tensor of the files. A %d of its names is the layer.
type part struct {
	hf, gguf string
	dims     func(Config) []int
	rotary   func(Config) int // how many rotary heads its rows are; nil: none
}

func (l line) perLayer() bool { return strings.Contains(l.parts[0].hf, "%d") }

// Shapes of the files' tensors: matrices are [out, in] (y = x · Wᵀ).
func hidden(c Config) []int          { return []int{c.HiddenSize} }
func headDim(c Config) []int         { return []int{c.HeadDim} }
func queries(c Config) []int         { return []int{c.Heads * c.HeadDim} }
func keys(c Config) []int            { return []int{c.KVHeads * c.HeadDim} }
func vocabByHidden(c Config) []int   { return []int{c.VocabSize, c.HiddenSize} }
func queriesByHidden(c Config) []int { return []int{c.Heads * c.HeadDim, c.HiddenSize} }
func keysByHidden(c Config) []int    { return []int{c.KVHeads * c.HeadDim, c.HiddenSize} }
func hiddenByQueries(c Config) []int { return []int{c.HiddenSize, c.Heads * c.HeadDim} }
func innerByHidden(c Config) []int   { return []int{c.IntermediateSize, c.HiddenSize} }
func hiddenByInner(c Config) []int   { return []int{c.HiddenSize, c.IntermediateSize} }

func queryHeads(c Config) int    { return c.Heads }
func kvHeads(c Config) int       { return c.KVHeads }
func hasHeadNorms(c Config) bool { return c.Arch().HeadNorms }

func byKeyHeads(c Config, _ int) int      { return c.KVHeads }
func byDevices(_ Config, devices int) int { return devices }

// Weight is one tensor of a model's files, in Hugging Face's conventions whatever the file's own
// are: rotary pairs are rows i and i + D/2 of a head, matrices are [out, in].
type Weight struct {
	Role     Role
	Layer    int    // 0 outside the layers
	HF, GGUF string // its names in the two formats
	Dims     []int  // [out, in] or [width]
	// RotaryHeads is, for rows of queries and keys, how many heads they are; 0 for the others.
	RotaryHeads int
}

// Elements is the number of its elements.
func (w Weight) Elements() int64 {
	n := int64(1)
	for _, d := range w.Dims {
		n *= int64(d)
	}
	return n
}

// Tensor is one tensor of a model's graph: a weight, or several that are joined.
type Tensor struct {
	Role  Role
	Layer int // 0 outside the layers
	Parts []Weight
	Cut   int    // the axis along which devices share it, or Whole
	Packs string // the element type of GGUF files in which it can stay packed; "" stands for none

	config Config
}

// Dims is its shape on so many devices together. Several parts are interleaved in runs: those of
// queries, keys and values by key/value heads, those of gate and up by devices.
//
//	q [H*D, hidden], k and v [K*D, hidden]  ->  [K, H/K + 2, D, hidden]
//	their biases [H*D], [K*D] and [K*D]     ->  [K, H/K + 2, D]
//	gate and up [intermediate, hidden]      ->  [n, 2, intermediate/n, hidden]
//
// For each key/value head the rows of its query heads come first, then its key's, then its value's:
// a cut along K leaves every device whole heads with their own part of the cache. Likewise each of
// n devices has the same rows of gate and up.
func (t Tensor) Dims(devices int) []int {
	if len(t.Parts) == 1 {
		return t.Parts[0].Dims
	}
	runs, unit := t.runs(devices), t.Parts[0].Dims[0]
	for _, p := range t.Parts {
		unit = min(unit, p.Dims[0])
	}
	unit /= runs
	return append([]int{runs, t.rows() / runs / unit, unit}, t.Parts[0].Dims[1:]...)
}

// Row is where row r of a part lies among all rows of the tensor on one device.
func (t Tensor) Row(part, r int) int {
	runs, before := t.runs(1), 0
	for _, p := range t.Parts[:part] {
		before += p.Dims[0] / runs
	}
	each := t.Parts[part].Dims[0] / runs
	return r/each*(t.rows()/runs) + before + r%each
}

// Elements is the number of elements of all parts.
func (t Tensor) Elements() (sum int64) {
	for _, p := range t.Parts {
		sum += p.Elements()
	}
	return sum
}

// Matrix says that it multiplies vectors, or gives rows of the vocabulary.
func (t Tensor) Matrix() bool { return len(t.Parts[0].Dims) == 2 }

func (t Tensor) runs(devices int) int {
	if f := table[t.Role].runs; f != nil {
		return f(t.config, devices)
	}
	return 1
}

func (t Tensor) rows() (sum int) {
	for _, p := range t.Parts {
		sum += p.Dims[0]
	}
	return sum
}

// Tensors lists all tensors of the model's graph, in the order of its computation: embeddings, the
// layers, the last norm, the head.
func (c Config) Tensors() []Tensor {
	var list []Tensor
	for role := Embed; role < Roles; {
		if !table[role].perLayer() {
			list = c.appendTensor(list, role, 0)
			role++
			continue
		}
		end := role
		for end < Roles && table[end].perLayer() {
			end++
		}
		for layer := range c.Layers {
			for r := role; r < end; r++ {
				list = c.appendTensor(list, r, layer)
			}
		}
		role = end
	}
	return list
}

// appendTensor appends a line of the table, if the model has it.
func (c Config) appendTensor(list []Tensor, role Role, layer int) []Tensor {
	l := table[role]
	if l.only != nil && !l.only(c) {
		return list
	}
	t := Tensor{Role: role, Layer: layer, Cut: l.cut, Packs: l.packs, config: c}
	name := func(format string) string {
		if l.perLayer() {
			return fmt.Sprintf(format, layer)
		}
		return format
	}
	for _, p := range l.parts {
		w := Weight{Role: role, Layer: layer, HF: name(p.hf), GGUF: name(p.gguf), Dims: p.dims(c)}
		if p.rotary != nil {
			w.RotaryHeads = p.rotary(c)
		}
		t.Parts = append(t.Parts, w)
	}
	return append(list, t)
}

// Weights lists all tensors that the model's files have to hold, in the order of its computation.
func (c Config) Weights() []Weight {
	var list []Weight
	for _, t := range c.Tensors() {
		list = append(list, t.Parts...)
	}
	return list
}

// OfLayer says that a model has one such tensor for each layer.
func (r Role) OfLayer() bool { return table[r].perLayer() }

// ParameterCount is the number of weights, the output head counted once when it is tied.
func (c Config) ParameterCount() int64 {
	var sum int64
	for _, w := range c.Weights() {
		sum += w.Elements()
	}
	return sum
}
