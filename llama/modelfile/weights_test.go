package modelfile

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// smallShape has 4 query heads, 2 key/value heads of width 2.
func smallShape(architecture string) Config {
	return Config{Architecture: architecture, VocabSize: 11, HiddenSize: 10, IntermediateSize: 6,
		Layers: 2, Heads: 4, KVHeads: 2, HeadDim: 2}
}

// By hand: for each key/value head its two query heads, its key and its value, each of two rows;
// gate and up share by share.
func TestJoinedRows(t *testing.T) {
	for _, x := range smallShape("qwen2").Tensors() {
		if x.Layer > 0 {
			continue
		}
		switch x.Role {
		case QKV, QKVBias:
			want := []int{2, 4, 2}
			if x.Role == QKV {
				want = append(want, 10)
			}
			if diff := cmp.Diff(want, x.Dims(1)); diff != "" {
				t.Errorf("shape (-want +got):\n%s", diff)
			}
			for part, want := range [][]int{{0, 1, 2, 3, 8, 9, 10, 11}, {4, 5, 12, 13}, {6, 7, 14, 15}} {
				var got []int
				for r := range x.Parts[part].Dims[0] {
					got = append(got, x.Row(part, r))
				}
				if !slices.Equal(got, want) {
					t.Errorf("part %d: rows %v, want %v", part, got, want)
				}
			}
		case GateUp:
			if diff := cmp.Diff([]int{3, 2, 2, 10}, x.Dims(3)); diff != "" {
				t.Errorf("shape on 3 devices (-want +got):\n%s", diff)
			}
			if got := x.Row(1, 4); got != 10 { // up lies below the 6 rows of gate
				t.Errorf("row 4 of up lies at %d, want 10", got)
			}
		case Output:
			if diff := cmp.Diff([]int{10, 8}, x.Dims(2)); diff != "" {
				t.Errorf("shape (-want +got):\n%s", diff)
			}
		}
	}
}

// Which weights of a layer an architecture has, in the order of the computation.
func TestWeightsOfEachArchitecture(t *testing.T) {
	rest := []string{"attn_output.weight", "ffn_norm.weight", "ffn_gate.weight", "ffn_up.weight", "ffn_down.weight"}
	plain := []string{"attn_norm.weight", "attn_q.weight", "attn_k.weight", "attn_v.weight"}
	for architecture, more := range map[string][]string{
		"llama": nil, "mistral": nil,
		"qwen2": {"attn_q.bias", "attn_k.bias", "attn_v.bias"},
		"qwen3": {"attn_q_norm.weight", "attn_k_norm.weight"},
	} {
		var got []string
		for _, w := range smallShape(architecture).Weights() {
			if name, found := strings.CutPrefix(w.GGUF, "blk.1."); found {
				got = append(got, name)
			}
		}
		if diff := cmp.Diff(slices.Concat(plain, more, rest), got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", architecture, diff)
		}
	}
}

// No two weights have one name, in either format, and an output head is there where it is not tied.
func TestNamesOfWeightsDiffer(t *testing.T) {
	for _, architecture := range Architectures() {
		for _, tied := range []bool{false, true} {
			c := smallShape(architecture)
			c.TieEmbeddings = tied
			names, heads := map[string]bool{}, 0
			for _, w := range c.Weights() {
				if names[w.HF] || names[w.GGUF] {
					t.Errorf("%s: %s or %s is there twice", architecture, w.HF, w.GGUF)
				}
				names[w.HF], names[w.GGUF] = true, true
				if w.Role == Head {
					heads++
				}
			}
			if want := map[bool]int{false: 1, true: 0}[tied]; heads != want {
				t.Errorf("%s, tied %v: %d heads, want %d", architecture, tied, heads, want)
			}
		}
	}
}
