package llama

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/google/go-cmp/cmp"

	"github.com/kvqbook/kvqbook/internal/fakemodel"
	"github.com/kvqbook/kvqbook/internal/testbackend"
	"github.com/kvqbook/kvqbook/internal/testlane"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama/modelfile"
)

// shapeGolden is a file of testdata/arch: a tiny random model of some shape, and what transformers
// makes of it. Made by scripts/make-arch-goldens.py, which says what the fields are.
type shapeGolden struct {
	Config json.RawMessage `json:"config"`
	Seed   int             `json:"seed"`
	IDs    [][]int32       `json:"input_ids"`
	Mask   [][]int32       `json:"attention_mask"`
	Tokens [][]int32       `json:"tokens"`
	Kept   []int           `json:"kept"`
	First  [][]float32     `json:"first_logits"`
	Last   [][]float32     `json:"last_logits"`
	Ropes  []float32       `json:"rope_freqs"`
}

// shapeGoldens lists the goldens by name.
func shapeGoldens(t testing.TB) map[string]shapeGolden {
	t.Helper()
	paths, err := filepath.Glob("testdata/arch/*.json")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no goldens in testdata/arch: %v", err)
	}
	all := map[string]shapeGolden{}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var g shapeGolden
		if err := json.Unmarshal(data, &g); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		all[strings.TrimSuffix(filepath.Base(path), ".json")] = g
	}
	return all
}

// tensors computes the weights that the script computed: function weight there.
func (g shapeGolden) tensors(t testing.TB, ggufNames bool) []fakeTensor {
	t.Helper()
	c, err := modelfile.ParseConfig(g.Config, nil)
	if err != nil {
		t.Fatal(err)
	}
	var list []fakeTensor
	for _, p := range c.Weights() {
		f := fakeTensor{Name: p.HF, DType: dtypes.Float32, Dims: p.Dims}
		n := 1
		for _, d := range p.Dims {
			n *= d
		}
		f.Data = make([]byte, 4*n)
		start := uint64(0xcbf29ce484222325)
		for _, b := range fmt.Appendf(nil, "%d:%s", g.Seed, p.HF) {
			start = (start ^ uint64(b)) * 0x100000001b3
		}
		offset, scale := 0.0, 0.1875
		switch {
		case strings.Contains(p.HF, "norm"):
			offset, scale = 1, 0.25
		case strings.Contains(p.HF, "embed_tokens"), strings.Contains(p.HF, "lm_head"):
			scale = 1
		case strings.Contains(p.HF, "q_proj"), strings.Contains(p.HF, "k_proj"):
			scale = 0.25
		}
		for i := range n {
			z := start + uint64(i+1)*0x9e3779b97f4a7c15
			z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
			z = (z ^ z>>27) * 0x94d049bb133111eb
			z ^= z >> 31
			fakemodel.Put(dtypes.Float32, f.Data[4*i:], float32(offset+scale*(float64(z>>48)/32768-1)))
		}
		if ggufNames {
			f.Name = p.GGUF
			if p.RotaryHeads > 0 && c.Arch().PairedRows {
				f.Data = fakemodel.PermuteLikeLlamaCpp(f.Data, p.RotaryHeads, c.HeadDim, len(f.Data)/p.Dims[0])
			}
		}
		list = append(list, f)
	}
	return list
}

// folder writes the model as a folder in Hugging Face's layout.
func (g shapeGolden) folder(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	writeFile(t, g.Config, dir, "config.json")
	writeFile(t, safetensorsBytes(t, g.tensors(t, false)), dir, "model.safetensors")
	return dir
}

// notInGGUF are keys that the converter does not write for an architecture: their values follow
// from others.
var notInGGUF = map[string][]string{
	"qwen2": {"attention.key_length", "attention.value_length", "rope.dimension_count"},
}

// gguf writes it as a GGUF file, with the metadata and names that llama.cpp's convert_hf_to_gguf.py
// (seen by running that of llama-cpp-python 0.3.16) gives such a model, and more of it. packed: the
// element types in which weights can stay packed.
func (g shapeGolden) gguf(t testing.TB, more map[string]any, packed bool) string {
	t.Helper()
	c, err := modelfile.ParseConfig(g.Config, nil)
	if err != nil {
		t.Fatal(err)
	}
	metadata := with(map[string]any{
		"general.architecture": c.Arch().GGUF, "tokenizer.ggml.bos_token_id": uint32(c.BOS), "tokenizer.ggml.eos_token_id": uint32(c.EOS[0]),
	}, more)
	for key, value := range map[string]any{
		"vocab_size": uint32(c.VocabSize), "block_count": uint32(c.Layers), "context_length": uint32(c.MaxPositions),
		"embedding_length": uint32(c.HiddenSize), "feed_forward_length": uint32(c.IntermediateSize),
		"attention.head_count": uint32(c.Heads), "attention.head_count_kv": uint32(c.KVHeads), "attention.key_length": uint32(c.HeadDim),
		"attention.value_length": uint32(c.HeadDim), "rope.dimension_count": uint32(c.HeadDim), "rope.freq_base": float32(c.RopeTheta),
		"attention.layer_norm_rms_epsilon": float32(c.RMSNormEps),
	} {
		if !slices.Contains(notInGGUF[c.Architecture], key) {
			metadata[c.Arch().GGUF+"."+key] = value
		}
	}
	if len(c.EOS) > 1 {
		metadata["tokenizer.ggml.eot_token_id"] = uint32(c.EOS[1])
	}
	list := g.tensors(t, true)
	if packed {
		packs := map[string]string{}
		for _, tensor := range c.Tensors() {
			for _, w := range tensor.Parts {
				packs[w.GGUF] = tensor.Packs
			}
		}
		for i, f := range list {
			if kind := packs[f.Name]; kind != "" {
				list[i] = f.Pack(kind)
			}
		}
	}
	switch c.RopeScaling.Type {
	case "linear":
		metadata["llama.rope.scaling.type"], metadata["llama.rope.scaling.factor"] = "linear", float32(c.RopeScaling.Factor)
	case "llama3":
		f := fakeTensor{Name: "rope_freqs.weight", DType: dtypes.Float32, Dims: []int{len(g.Ropes)}, Data: make([]byte, 4*len(g.Ropes))}
		for i, v := range g.Ropes {
			fakemodel.Put(dtypes.Float32, f.Data[4*i:], v)
		}
		list = append(list, f)
	}
	return writeFile(t, ggufBytes(t, metadata, list), t.TempDir(), "model.gguf")
}

// check generates with a cache: the tokens of transformers, and logits within a tolerance of its
// logits (0: not compared).
func (g shapeGolden) check(t *testing.T, m *Model, cache kvq.Config, tolerance float64) {
	t.Helper()
	r := mustGenerate(t, mustGenerator(t, m, cache), g.IDs, g.Mask, GenerateConfig{MaxNewTokens: 12, MinNewTokens: 12, KeepLogits: true})
	if !slices.EqualFunc(r.Tokens, g.Tokens, slices.Equal) {
		t.Errorf("tokens %v, transformers gives %v", r.Tokens, g.Tokens)
		return
	}
	if tolerance == 0 {
		return
	}
	var most float64
	for row := range g.Tokens {
		for step, want := range map[int][]float32{0: g.First[row], len(g.Tokens[row]) - 1: g.Last[row]} {
			got := make([]float32, len(g.Kept))
			for i, id := range g.Kept {
				got[i] = r.Logits[step][row][id]
			}
			d := worst(t, got, want)
			most = math.Max(most, d)
			if d > tolerance {
				t.Errorf("row %d, step %d: logits differ by up to %g, want at most %g", row, step, d, tolerance)
			}
		}
	}
	t.Logf("logits differ by up to %.2g", most)
}

// Each architecture of docs/architectures.md on a tiny random model: the tokens that transformers
// generates, and its logits, with the full cache; the same tokens from codes of 8 bits, most of the
// prompt among them, once for each shape of attention.
func TestArchitectures(t *testing.T) {
	testbackend.XLA(t)
	type attention struct {
		architecture           string
		group, headDim, window int
	}
	seen := map[attention]bool{}
	goldens := shapeGoldens(t)
	for _, name := range slices.Sorted(maps.Keys(goldens)) {
		g := goldens[name]
		c, err := modelfile.ParseConfig(g.Config, nil)
		if err != nil {
			t.Fatal(err)
		}
		shape := attention{c.Architecture, c.Heads / c.KVHeads, c.HeadDim, c.SlidingWindow}
		known := seen[shape]
		seen[shape] = true
		t.Run(name, func(t *testing.T) {
			if name != "llama-3.2-1b" {
				testlane.Slow(t, "one architecture is enough for a quick look")
			}
			t.Parallel()
			m := mustModel(t, g.folder(t), dtypes.Float32)
			defer m.Finalize()
			g.check(t, m, kvq.Config{}, 1e-3)
			if known {
				return
			}
			g.check(t, m, kvq.Config{Backend: kvq.Quanto, NBits: 8, QGroupSize: 16, ResidualLength: 4}, 0)
			// the presets' way, with sinks that the window leaves behind
			if m.Config().SlidingWindow > 0 {
				g.check(t, m, kvq.Config{Backend: kvq.Blocks, NBits: 8, QGroupSize: 16, ResidualLength: 4, Sinks: 2}, 0)
			}
		})
	}
}

// What an architecture adds is shared by devices as the rest is: two of them give the same tokens,
// from a full cache and from codes.
func TestArchitecturesOnTwoDevices(t *testing.T) {
	testlane.Slow(t, "compiles for several devices")
	backend := testbackend.XLA(t)
	if has := backend.NumDevices(); has < 2 {
		t.Skipf("two devices wanted, XLA shows %d", has)
	}
	goldens := shapeGoldens(t)
	for _, name := range []string{"qwen2.5-7b", "qwen3-0.6b"} {
		t.Run(name, func(t *testing.T) {
			m := mustLoad(t, goldens[name].folder(t), LoadOptions{Devices: 2})
			defer m.Finalize()
			goldens[name].check(t, m, kvq.Config{}, 1e-3)
			goldens[name].check(t, m, kvq.Config{Backend: kvq.Quanto, NBits: 8, QGroupSize: 16, ResidualLength: 4}, 0)
			sketch, err := newModel(backend, m.config, m.dtype, 2)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(fmt.Sprint(layoutsOf(m)), fmt.Sprint(sketch.weightLayouts())); diff != "" {
				t.Errorf("weights lie as (-want +got):\n%s", diff)
			}
		})
	}
}

// In 16 bits logits are near to those of float32: nothing that an architecture adds is left in
// another dtype.
func TestArchitecturesIn16Bits(t *testing.T) {
	testlane.Slow(t, "compiles four models")
	testbackend.XLA(t)
	goldens := shapeGoldens(t)
	for _, name := range []string{"qwen2.5-7b", "qwen3-8b"} {
		for dtype, tolerance := range map[dtypes.DType]float64{dtypes.Float16: 0.01, dtypes.BFloat16: 0.08} { // of their root mean square
			t.Run(fmt.Sprintf("%s/%s", name, dtype), func(t *testing.T) {
				g := goldens[name]
				m := mustModel(t, g.folder(t), dtype)
				defer m.Finalize()
				r := mustGenerate(t, mustGenerator(t, m, kvq.Config{}), g.IDs, g.Mask, GenerateConfig{TeacherForced: g.Tokens, KeepLogits: true})
				var sum, size float64
				for step, wanted := range map[int][][]float32{0: g.First, len(g.Tokens[0]) - 1: g.Last} {
					for row := range wanted {
						for i, id := range g.Kept {
							want, got := float64(wanted[row][i]), float64(r.Logits[step][row][id])
							sum, size = sum+(got-want)*(got-want), size+want*want
						}
					}
				}
				off := math.Sqrt(sum / size)
				t.Logf("logits differ by %.4f of their size", off)
				if !(off <= tolerance && off > 0) { // exactly 0 would mean that nothing was rounded
					t.Errorf("logits differ from float32 by %g of their size, want above 0 and at most %g", off, tolerance)
				}
			})
		}
	}
}

// Weights of each architecture that stay packed give the logits of the same weights as numbers, and
// take the memory that is predicted.
func TestArchitecturesPacked(t *testing.T) {
	testlane.Slow(t, "compiles six models")
	testbackend.XLA(t)
	goldens := shapeGoldens(t)
	for _, name := range []string{"llama-3.2-1b", "qwen2.5-0.5b", "qwen3-0.6b"} {
		t.Run(name, func(t *testing.T) {
			g := goldens[name]
			path := g.gguf(t, nil, true)
			packed, plain := mustLoad(t, path, LoadOptions{}), mustLoad(t, path, LoadOptions{Weights: PlainWeights})
			defer packed.Finalize()
			defer plain.Finalize()
			if !packed.packed || plain.packed {
				t.Fatal("want packed weights without being asked, and plain ones when asked")
			}
			var logits [][][][]float32
			for _, m := range []*Model{plain, packed} {
				r := mustGenerate(t, mustGenerator(t, m, kvq.Config{}), g.IDs, g.Mask, GenerateConfig{TeacherForced: g.Tokens, KeepLogits: true})
				logits = append(logits, r.Logits)
				var predicted int64
				for _, l := range m.weightLayouts() {
					predicted += int64(l.shape.ByteSize())
				}
				if got := m.Bytes(); got != predicted {
					t.Errorf("weights take %d bytes, predicted are %d", got, predicted)
				}
			}
			for step := range logits[0] {
				for row := range logits[0][step] {
					if d := worst(t, logits[1][step][row], logits[0][step][row]); d > 1e-3 {
						t.Errorf("step %d, row %d: logits differ by up to %g, want at most 1e-3", step, row, d)
					}
				}
			}
		})
	}
}

// A GGUF file of the same model is the same model: configuration and rotary frequencies. Where GGUF
// says it in a way of its own, the tokens too.
func TestArchitecturesGGUF(t *testing.T) {
	testlane.Slow(t, "goldens of every architecture; TestArchitectures has one of them")
	for name, g := range shapeGoldens(t) {
		t.Run(name, func(t *testing.T) {
			c, err := modelfile.ParseConfig(g.Config, nil)
			if err != nil {
				t.Fatal(err)
			}
			var more map[string]any
			if c.SlidingWindow > 0 {
				more = map[string]any{c.Arch().GGUF + ".attention.sliding_window": uint32(c.SlidingWindow)}
			}
			f, err := Open(g.gguf(t, more, false))
			if err != nil {
				t.Fatal(err)
			}
			got := f.Config()
			a, b := got.RotaryFrequencies(), c.RotaryFrequencies()
			for i := range b {
				if math.Abs(float64(a[i]/b[i])-1) > 1e-6 {
					t.Errorf("rotary frequency %d is %g, want %g", i, a[i], b[i])
				}
			}
			got.RopeScaling = c.RopeScaling
			if c.Architecture == "mistral" {
				got.Architecture = c.Architecture // the converter calls it llama
			}
			if diff := cmp.Diff(c, got); diff != "" {
				t.Errorf("config differs (-want +got):\n%s", diff)
			}
			switch name {
			case "llama-3.1-8b", "llama-3.2-1b", "llama-linear", "mistral-7b-v0.1", "mistral-nemo-12b",
				"qwen2.5-0.5b", "qwen2-window", "qwen3-0.6b", "qwen3-8b":
				testbackend.XLA(t)
				m := mustModel(t, f.Path(), dtypes.Float32)
				defer m.Finalize()
				g.check(t, m, kvq.Config{}, 1e-3)
			}
		})
	}
	// The converter does not write Mistral's window: such a file attends to everything, as
	// llama.cpp does.
	f, err := Open(shapeGoldens(t)["mistral-7b-v0.1"].gguf(t, nil, false))
	if err != nil || f.Config().SlidingWindow != 0 {
		t.Errorf("window %d, error %v; want none", f.Config().SlidingWindow, err)
	}
}
