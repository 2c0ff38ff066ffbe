package exercise

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	_ "github.com/gomlx/compute/gobackend" // small graphs, without a plugin
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/kvq"
)

// CacheShape checks what a cache has to know of a model whose configuration gives the size of
// hidden states and the number of heads, in float16.
func CacheShape(answer func(hidden, layers, heads, kvHeads, rows, tokens int) kvq.Shape) Verdict {
	cases := []struct {
		name                                        string
		hidden, layers, heads, kvHeads, rows, slots int
	}{
		{"Llama-2-7B, one row of 4,096 tokens", 4096, 32, 32, 32, 1, 4096},
		{"Llama-3.1-8B, 8 rows of 2,048 tokens", 4096, 32, 32, 8, 8, 2048},
		{"SmolLM2-135M, 2 rows of 1,000 tokens", 576, 30, 9, 3, 2, 1000},
	}
	for i, c := range cases {
		got, panicked := attempt(func() kvq.Shape { return answer(c.hidden, c.layers, c.heads, c.kvHeads, c.rows, c.slots) })
		if panicked != "" {
			return notYet("with %s your function panicked: %s", c.name, panicked)
		}
		for _, field := range []struct {
			name      string
			got, want int
		}{
			{"Layers", got.Layers, c.layers}, {"Batch", got.Batch, c.rows}, {"KVHeads", got.KVHeads, c.kvHeads},
			{"HeadDim", got.HeadDim, c.hidden / c.heads}, {"Capacity", got.Capacity, c.slots},
		} {
			if field.got != field.want {
				return notYet("with %s %s is %d, wanted %d. %d of %d cases are right", c.name, field.name, field.got, field.want, i, len(cases))
			}
		}
		if got.DType != dtypes.Float16 {
			return notYet("with %s DType is %s, wanted float16", c.name, got.DType)
		}
		if _, err := kvq.New(kvq.Config{}, got); err != nil {
			return notYet("with %s kvq.New refuses the shape: %v", c.name, err)
		}
	}
	return right("the shape, in all %d cases", len(cases))
}

// KVHead checks which key/value head a query head reads.
func KVHead(answer func(queryHead, heads, kvHeads int) int) Verdict {
	var trials []trial
	for _, c := range []struct{ head, heads, kvHeads, want int }{
		{0, 9, 3, 0}, {5, 9, 3, 1}, {8, 9, 3, 2}, {31, 32, 32, 31}, {31, 32, 8, 7}, {5, 6, 1, 0},
	} {
		trials = append(trials, trial{fmt.Sprintf("with query head %d of %d and %d key/value heads", c.head, c.heads, c.kvHeads),
			func() float64 { return float64(answer(c.head, c.heads, c.kvHeads)) }, float64(c.want)})
	}
	return judge("the key/value head", 0, trials...)
}

// Surprise checks the loss of one token: minus the logarithm of the probability that logits give
// it, also for logits whose exponentials are infinite.
func Surprise(answer func(logits []float64, next int) float64) Verdict {
	var trials []trial
	for _, c := range []struct {
		name   string
		logits []float64
		next   int
	}{
		{"four equal logits", []float64{1, 1, 1, 1}, 2},
		{"logits 0, 1, 2 and the last as the next token", []float64{0, 1, 2}, 2},
		{"logits 0, 1, 2 and the first as the next token", []float64{0, 1, 2}, 0},
		{"logits so large that exp is infinite", []float64{1000, 1001}, 0},
	} {
		trials = append(trials, trial{"with " + c.name, func() float64 { return answer(slices.Clone(c.logits), c.next) }, surprise(c.logits, c.next)})
	}
	return judge("the loss", 1e-9, trials...)
}

// surprise subtracts the largest logit first, which changes no quotient.
func surprise(logits []float64, next int) float64 {
	largest, sum := slices.Max(logits), 0.0
	for _, x := range logits {
		sum += math.Exp(x - largest)
	}
	return math.Log(sum) + largest - logits[next]
}

// Attention is a layer's attention with a cache, on queries [B, T, H, D], keys and values
// [B, T, K, D] of the newest T tokens: [B, T, H, D].
type Attention func(cache kvq.LayerCache, queries, keys, values *graph.Node) *graph.Node

// WithCache checks such an attention on real caches, which want [B, heads, T, D]: a text goes in as
// a prompt and token by token, and the outputs have to be those of attention over the whole text.
func WithCache(answer Attention) Verdict {
	const prompt, tokens, dim = 3, 5, 4
	backend, err := compute.NewWithConfig("go:ops_sequential")
	if err != nil {
		return notYet("GoMLX's backend in Go does not open: %v", err)
	}
	defer backend.Finalize()
	for _, c := range []struct{ heads, kvHeads int }{{1, 1}, {2, 2}, {4, 2}} {
		with := fmt.Sprintf("with %d query heads and %d key/value heads,", c.heads, c.kvHeads)
		q, k, v := made(tokens, c.heads, dim, 1), made(tokens, c.kvHeads, dim, 2), made(tokens, c.kvHeads, dim, 3)
		got, err := runAttention(backend, answer, c.kvHeads, prompt, q, k, v)
		if err != nil {
			return notYet("%s the graph is refused: %s", with, firstLine(err))
		}
		if len(got) != tokens*c.heads*dim {
			return notYet("%s %d numbers came, wanted %d: [1, %d, %d, %d]", with, len(got), tokens*c.heads*dim, tokens, c.heads, dim)
		}
		for i, want := range causal(q, k, v) {
			if off := math.Abs(float64(got[i]) - want); !(off <= 1e-4) {
				return notYet("%s token %d, head %d is off by %.2g in its number %d", with, i/(c.heads*dim), i/dim%c.heads, off, i%dim)
			}
		}
	}
	return right("the outputs, of a prompt and of single tokens, in all 3 cases")
}

// runAttention feeds a prompt and then single tokens: the outputs of all, [T, H, D].
func runAttention(backend compute.Backend, answer Attention, kvHeads, prompt int, q, k, v [][][]float32) (out []float32, err error) {
	plan, err := kvq.New(kvq.Config{}, kvq.Shape{Layers: 1, Batch: 1, KVHeads: kvHeads, HeadDim: len(q[0][0]), Capacity: len(q), DType: dtypes.Float32})
	if err != nil {
		return nil, err
	}
	step := func(cache kvq.Cache, in []*graph.Node) []*graph.Node {
		made := answer(cache.Layer(0), in[0], in[1], in[2])
		cache.Advance()
		return append([]*graph.Node{made}, cache.Nodes()...)
	}
	first, err := graph.NewExec(backend, func(in []*graph.Node) []*graph.Node { return step(plan.Init(in[3]), in) })
	if err != nil {
		return nil, err
	}
	defer first.Finalize()
	next, err := graph.NewExec(backend, func(in []*graph.Node) []*graph.Node { return step(plan.From(in[3:]), in) })
	if err != nil {
		return nil, err
	}
	defer next.Finalize()
	part := func(x [][][]float32, from, to int) [][][][]float32 { return [][][][]float32{x[from:to]} }
	state := []any{[]int32{0}}
	for from, to := 0, prompt; from < len(q); from, to = to, to+1 {
		exec := next
		if from == 0 {
			exec = first
		}
		results, err := exec.Call(append([]any{part(q, from, to), part(k, from, to), part(v, from, to)}, state...)...)
		if err != nil {
			return nil, err
		}
		flat, err := tensors.CopyFlatData[float32](results[0])
		if err != nil {
			return nil, err
		}
		out, state = append(out, flat...), nil
		for _, t := range results[1:] {
			state = append(state, t)
		}
	}
	return out, nil
}

// made are numbers [T, heads, D] that differ from place to place.
func made(tokens, heads, dim, seed int) [][][]float32 {
	out := make([][][]float32, tokens)
	for t := range out {
		out[t] = make([][]float32, heads)
		for h := range out[t] {
			out[t][h] = make([]float32, dim)
			for d := range dim {
				out[t][h][d] = float32(2 * math.Sin(float64(seed+7*t+13*h*h+3*d*(seed+t))))
			}
		}
	}
	return out
}

// causal is attention of a whole text over itself, by hand.
func causal(q, k, v [][][]float32) (out []float64) {
	for t := range q {
		for h, query := range q[t] {
			kv := h / (len(q[0]) / len(k[0]))
			asks := make([]float64, len(query))
			keys := make([][]float64, t+1)
			for s := range keys {
				for d := range query {
					keys[s] = append(keys[s], float64(k[s][kv][d]))
					asks[d] = float64(query[d])
				}
			}
			weights := softmaxOfScores(asks, keys)
			for d := range query {
				sum := 0.0
				for s, w := range weights {
					sum += w * float64(v[s][kv][d])
				}
				out = append(out, sum)
			}
		}
	}
	return out
}

// firstLine is what an error says of the reader's function: without where GoMLX met it, and the
// stack below it.
func firstLine(err error) string {
	text, _, _ := strings.Cut(err.Error(), "\n")
	if _, said, ok := strings.Cut(text, "panicked: "); ok {
		return said
	}
	return text
}
