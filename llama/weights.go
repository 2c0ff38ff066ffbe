package llama

import (
	"fmt"

	"github.com/gomlx/gomlx/core/tensors"
)

// Weights holds one tensor per parameter, in Hugging Face's conventions whatever the file's own were: rotary pairs
// are rows i and i + D/2 of a head, linear weights are [out, in] (y = x · Wᵀ). All have the dtype asked for.
type Weights struct {
	Embed  *tensors.Tensor // [VocabSize, HiddenSize]
	Layers []LayerWeights  // one a block
	Norm   *tensors.Tensor // [HiddenSize], the norm after the last block
	Head   *tensors.Tensor // [VocabSize, HiddenSize]; nil when tied to Embed
}

// LayerWeights holds the parameters of one block. Letters: H query heads, K key/value heads, D head dim.
type LayerWeights struct {
	AttnNorm *tensors.Tensor // [HiddenSize], before attention
	Q        *tensors.Tensor // [H*D, HiddenSize]
	K        *tensors.Tensor // [K*D, HiddenSize]
	V        *tensors.Tensor // [K*D, HiddenSize]
	O        *tensors.Tensor // [HiddenSize, H*D]
	MLPNorm  *tensors.Tensor // [HiddenSize], before the feed-forward part
	Gate     *tensors.Tensor // [IntermediateSize, HiddenSize]
	Up       *tensors.Tensor // [IntermediateSize, HiddenSize]
	Down     *tensors.Tensor // [HiddenSize, IntermediateSize]
}

// Finalize frees all tensors at once, on host and device, instead of waiting for the garbage collector. The weights
// are unusable afterwards. Safe on a nil receiver and on a partly filled value.
func (w *Weights) Finalize() {
	if w == nil {
		return
	}
	w.each(func(t **tensors.Tensor) {
		if *t != nil {
			_ = (*t).FinalizeAll() // only fails when it is gone already
			*t = nil
		}
	})
}

// Bytes is the memory that all tensors take, in bytes.
func (w *Weights) Bytes() int64 {
	var sum int64
	w.each(func(t **tensors.Tensor) {
		if *t != nil {
			sum += (*t).ByteSize()
		}
	})
	return sum
}

func (w *Weights) each(visit func(**tensors.Tensor)) {
	visit(&w.Embed)
	for i := range w.Layers {
		for _, t := range w.Layers[i].tensors() {
			visit(t)
		}
	}
	visit(&w.Norm)
	visit(&w.Head)
}

func (l *LayerWeights) tensors() []**tensors.Tensor {
	return []**tensors.Tensor{&l.AttnNorm, &l.Q, &l.K, &l.V, &l.O, &l.MLPNorm, &l.Gate, &l.Up, &l.Down}
}

// parameter is one tensor that the configuration implies.
type parameter struct {
	hf, gguf    string                          // its names in the two formats
	dims        []int                           // [out, in] or [width]
	rotaryHeads int                             // for query and key rows: how many heads they are; 0 for the others
	slot        func(*Weights) **tensors.Tensor // where it goes
}

// parameters lists all tensors of a model, in the order of its computation.
func (c Config) parameters() []parameter {
	h, i, q, kv := c.HiddenSize, c.IntermediateSize, c.Heads*c.HeadDim, c.KVHeads*c.HeadDim
	list := []parameter{{
		hf: "model.embed_tokens.weight", gguf: "token_embd.weight", dims: []int{c.VocabSize, h},
		slot: func(w *Weights) **tensors.Tensor { return &w.Embed },
	}}
	for n := range c.Layers {
		for _, p := range []struct {
			hf, gguf    string
			dims        []int
			rotaryHeads int
			slot        func(*LayerWeights) **tensors.Tensor
		}{
			{"input_layernorm", "attn_norm", []int{h}, 0, func(l *LayerWeights) **tensors.Tensor { return &l.AttnNorm }},
			{"self_attn.q_proj", "attn_q", []int{q, h}, c.Heads, func(l *LayerWeights) **tensors.Tensor { return &l.Q }},
			{"self_attn.k_proj", "attn_k", []int{kv, h}, c.KVHeads, func(l *LayerWeights) **tensors.Tensor { return &l.K }},
			{"self_attn.v_proj", "attn_v", []int{kv, h}, 0, func(l *LayerWeights) **tensors.Tensor { return &l.V }},
			{"self_attn.o_proj", "attn_output", []int{h, q}, 0, func(l *LayerWeights) **tensors.Tensor { return &l.O }},
			{"post_attention_layernorm", "ffn_norm", []int{h}, 0, func(l *LayerWeights) **tensors.Tensor { return &l.MLPNorm }},
			{"mlp.gate_proj", "ffn_gate", []int{i, h}, 0, func(l *LayerWeights) **tensors.Tensor { return &l.Gate }},
			{"mlp.up_proj", "ffn_up", []int{i, h}, 0, func(l *LayerWeights) **tensors.Tensor { return &l.Up }},
			{"mlp.down_proj", "ffn_down", []int{h, i}, 0, func(l *LayerWeights) **tensors.Tensor { return &l.Down }},
		} {
			slot := p.slot
			list = append(list, parameter{
				hf:   fmt.Sprintf("model.layers.%d.%s.weight", n, p.hf),
				gguf: fmt.Sprintf("blk.%d.%s.weight", n, p.gguf),
				dims: p.dims, rotaryHeads: p.rotaryHeads,
				slot: func(w *Weights) **tensors.Tensor { return slot(&w.Layers[n]) },
			})
		}
	}
	list = append(list, parameter{
		hf: "model.norm.weight", gguf: "output_norm.weight", dims: []int{h},
		slot: func(w *Weights) **tensors.Tensor { return &w.Norm },
	})
	if !c.TieEmbeddings {
		list = append(list, parameter{
			hf: "lm_head.weight", gguf: "output.weight", dims: []int{c.VocabSize, h},
			slot: func(w *Weights) **tensors.Tensor { return &w.Head },
		})
	}
	return list
}
