package llama

import (
	"context"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/internal/golden"
	"github.com/kvqbook/kvqbook/internal/testbackend"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// tinyNames are the random models of the goldens: plain and grouped-query heads.
var tinyNames = []string{"tiny-llama2", "tiny-llama2-gqa"}

// tinyModel loads a tiny model, once per name and dtype.
func tinyModel(t testing.TB, name string, dtype dtypes.DType) *Model {
	t.Helper()
	backend, dir := testbackend.XLA(t), golden.Dir(t)
	models.Lock()
	defer models.Unlock()
	key := fmt.Sprint(name, dtype)
	if m := models.loaded[key]; m != nil {
		return m
	}
	m := mustModel(t, filepath.Join(dir, name), dtype)
	if m.Backend() != backend {
		t.Fatal("model on another backend")
	}
	models.loaded[key] = m
	return m
}

var models = struct {
	sync.Mutex
	loaded     map[string]*Model
	generators map[string]*Generator
}{loaded: map[string]*Model{}, generators: map[string]*Generator{}}

// mustModel loads a model from its files.
func mustModel(t testing.TB, path string, dtype dtypes.DType) *Model {
	t.Helper()
	return mustLoad(t, path, LoadOptions{DType: dtype, Weights: PlainWeights})
}

func mustLoad(t testing.TB, path string, options LoadOptions) *Model {
	t.Helper()
	backend := testbackend.XLA(t)
	files, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	m, err := files.Load(backend, options)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// tinyGenerator is a generator of a tiny model in float32, one per model and cache for all tests:
// what one test has compiled, the others find.
func tinyGenerator(t testing.TB, name string, cache kvq.Config) *Generator {
	t.Helper()
	m := tinyModel(t, name, dtypes.Float32)
	models.Lock()
	defer models.Unlock()
	key := fmt.Sprintf("%s %+v", name, cache)
	g := models.generators[key]
	if g == nil {
		var err error
		if g, err = NewGenerator(m, cache); err != nil {
			t.Fatal(err)
		}
		models.generators[key] = g
	}
	return g
}

func mustGenerator(t testing.TB, m *Model, cache kvq.Config) *Generator {
	t.Helper()
	g, err := NewGenerator(m, cache)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Finalize)
	return g
}

// tinyGoldens is what goldens.json of a tiny model holds.
type tinyGoldens struct {
	Inputs map[string]struct {
		IDs  [][]int32 `json:"input_ids"`
		Mask [][]int32 `json:"attention_mask"`
	} `json:"inputs"`
	Variants map[string]struct {
		Generated [][]int32 `json:"generated_ids"`
	} `json:"variants"`
}

func readTiny(t testing.TB, name string) (tinyGoldens, map[string]golden.Array) {
	t.Helper()
	var g tinyGoldens
	dir := filepath.Join(golden.Dir(t), name)
	golden.JSON(t, &g, dir, "goldens.json")
	return g, golden.Safetensors(t, dir, "goldens.safetensors")
}

// worst is the largest difference of two vectors; NaN counts as infinite.
func worst(t testing.TB, got, want []float32) float64 {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d values, want %d", len(got), len(want))
	}
	var most float64
	for i := range got {
		d := math.Abs(float64(got[i]) - float64(want[i]))
		if !(d <= most) {
			most = d
		}
		if math.IsNaN(d) {
			return math.Inf(1)
		}
	}
	return most
}

// heldKV shows the keys and values of every layer, [B, K, T, D], that a full cache holds whose
// capacity is the prompt's.
func heldKV(cache kvq.Cache, s kvq.Shape, seen observer) {
	// length and start come first, then keys and values by layer, [K*B, T, D]
	arrays := cache.Nodes()[2:]
	for i, x := range arrays {
		x = Transpose(Reshape(x, s.KVHeads, s.Batch, s.Capacity, s.HeadDim), 0, 1)
		seen.see(x, "layer%d.%c", i/2, "kv"[i%2])
	}
}

// The whole prompt against transformers, in the graph that prefill runs: hidden states, keys after
// rotary embedding, values, and logits of all positions. Positions under padding are left out:
// transformers lets them see one another, no result depends on them.
func TestPromptMatchesTransformers(t *testing.T) {
	for _, name := range tinyNames {
		t.Run(name, func(t *testing.T) {
			m := tinyModel(t, name, dtypes.Float32)
			info, want := readTiny(t, name)
			in := info.Inputs["len16"]
			p, err := newPrompt(tokenizer.Batch{IDs: in.IDs, Mask: in.Mask}, m.Config())
			if err != nil {
				t.Fatal(err)
			}
			plan, err := tinyGenerator(t, name, kvq.Config{}).Plan(2, 16)
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			args := []any{}
			for _, w := range m.weights {
				args = append(args, w.parts[0])
			}
			out, err := ExecOnceN(m.Backend(), func(nodes []*Node) []*Node {
				var results []*Node
				see := observer(func(name string, n *Node) {
					names, results = append(names, name), append(results, n)
				})
				w, rest := m.nodes(nodes)
				cache := plan.Init(rest[1])
				hidden := m.hidden(w, rest[0], cache, see)
				heldKV(cache, plan.Shape(), see)
				see.see(w.logits(hidden), "prefill_logits")
				return results
			}, append(args, p.ids, p.start)...)
			if err != nil {
				t.Fatal(err)
			}
			if wanted := 3 + 2*2 + 1; len(out) != wanted {
				t.Fatalf("saw %v, want %d values", names, wanted)
			}
			for i, name := range names {
				array, ok := want["len16."+name]
				if !ok {
					t.Fatalf("no golden for %s", name)
				}
				if !slices.Equal(array.Shape, out[i].Shape().Dimensions) {
					t.Fatalf("%s is %s, the golden %v", name, out[i].Shape(), array.Shape)
				}
				got := tensors.MustCopyFlatData[float32](out[i])
				// [B, T, ...] or [B, K, T, D]: compare the columns from each row's first token on.
				axis := 1
				if len(array.Shape) == 4 {
					axis = 2
				}
				if d := worst(t, unpadded(got, array.Shape, axis, p.start), unpadded(array.Floats, array.Shape, axis, p.start)); d > 1e-4 {
					t.Errorf("%s differs by up to %g, want at most 1e-4", name, d)
				}
			}
		})
	}
}

// unpadded drops the columns of padding: axis is the one of columns, start how many each row has.
func unpadded(x []float32, shape []int, axis int, start []int32) []float32 {
	inner, outer := 1, 1
	for _, n := range shape[axis+1:] {
		inner *= n
	}
	for _, n := range shape[:axis] {
		outer *= n
	}
	var out []float32
	for o := range outer {
		row := o / (outer / shape[0])
		block := x[o*shape[axis]*inner : (o+1)*shape[axis]*inner]
		out = append(out, block[int(start[row])*inner:]...)
	}
	return out
}

// 24 tokens from both prompts: the same tokens as transformers, and with those tokens forced the
// same logits.
func TestGenerationMatchesTransformers(t *testing.T) {
	for _, name := range tinyNames {
		info, want := readTiny(t, name)
		g := tinyGenerator(t, name, kvq.Config{})
		for _, input := range []string{"len16", "len13"} {
			t.Run(name+"/"+input, func(t *testing.T) {
				in, generated := info.Inputs[input], info.Variants[input+".full"].Generated
				free, err := g.Generate(context.Background(), tokenizer.Batch{IDs: in.IDs, Mask: in.Mask}, GenerateConfig{MaxNewTokens: 24, MinNewTokens: 24})
				if err != nil {
					t.Fatal(err)
				}
				if !slices.EqualFunc(free.Tokens, generated, slices.Equal) {
					t.Errorf("tokens %v, transformers gives %v", free.Tokens, generated)
				}
				forced, err := g.Generate(context.Background(), tokenizer.Batch{IDs: in.IDs, Mask: in.Mask}, GenerateConfig{TeacherForced: generated, KeepLogits: true})
				if err != nil {
					t.Fatal(err)
				}
				checkLogits(t, forced.Logits, want[input+".full.logits"], 1e-4)
			})
		}
	}
}

// checkLogits compares [n][B][V] with a golden [B, n, V].
func checkLogits(t *testing.T, got [][][]float32, want golden.Array, tolerance float64) {
	t.Helper()
	b, n, v := want.Shape[0], want.Shape[1], want.Shape[2]
	if len(got) != n || len(got[0]) != b {
		t.Fatalf("%d steps of logits, want %d", len(got), n)
	}
	for i := range n {
		for row := range b {
			at := (row*n + i) * v
			if d := worst(t, got[i][row], want.Floats[at:at+v]); d > tolerance {
				t.Errorf("step %d, row %d: logits differ by up to %g, want at most %g", i, row, d, tolerance)
			}
		}
	}
}
