// Transformer gives a model that was not written for it a quantized key/value cache:
// github.com/gomlx/gomlx/ml/zoo/transformer.
//
// The model generates tokens without a cache, which is right and slow: every token costs a pass
// over all tokens before it. Then the same tokens go one by one through caches of package kvq, and
// the logits are compared; and a loop on the device makes tokens of its own.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"math"
	"os"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/kvqbook/kvqbook/device"
	"github.com/kvqbook/kvqbook/kvq"
)

func main() {
	name := flag.String("backend", "", "xla:cpu, xla:cuda, go, or xla: and the path of a PJRT plugin; empty: the first that is found")
	newTokens := flag.Int("tokens", 150, "tokens to generate")
	flag.Parse()
	backend, err := device.Open(*name)
	if err == nil {
		_, err = run(os.Stdout, backend, *newTokens)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "transformer:", err)
		os.Exit(1)
	}
}

// caches are the kinds to compare.
func caches() (names []string, configs []kvq.Config, err error) {
	names, configs = []string{"full precision", "tutorial"}, []kvq.Config{{}, kvq.Tutorial()}
	for _, name := range []string{"quality", "balanced", "smallest"} {
		c, err := kvq.PresetFor(name, headDim)
		if err != nil {
			return nil, nil, err
		}
		names, configs = append(names, name), append(configs, c)
	}
	return names, configs, nil
}

// result is a cache's agreement with the model that has none.
type result struct {
	name   string
	bits   float64 // a value that is coded
	bytes  int64   // of the whole cache, its window in full precision too
	agreed int     // steps at which the best token is the same
	// largest difference of a logit, as a part of the standard deviation of the logits
	worst float64
	// what the loop on the device makes of the prompt
	generated [][]int32
	same      int // of its tokens, the first so many are those of the model without a cache
}

// run generates newTokens tokens without a cache and follows them with every cache.
func run(w io.Writer, backend compute.Backend, newTokens int) ([]result, error) {
	prompt := []int32{17, 42, 99, 5, 200, 131, 7, 64}
	store := model.NewStore()
	store.SetParam(model.ParamInitialSeed, int64(42)) // the same weights in every run
	tokens, want, err := generate(backend, store, prompt, newTokens)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(w, "tokens without a cache: %v …\n", tokens[len(prompt):len(prompt)+min(12, newTokens)])
	names, configs, err := caches()
	if err != nil {
		return nil, err
	}
	var results []result
	for i, config := range configs {
		r, err := follow(backend, store, config, tokens, want, len(prompt))
		if err != nil {
			return nil, err
		}
		r.name = names[i]
		r.same = 0
		for r.same < newTokens && r.generated[0][r.same] == tokens[len(prompt)+r.same] {
			r.same++
		}
		fmt.Fprintf(w, "%-15s %5.2f bits a value, %7d bytes, %3d of %d best tokens agree, logits differ by at most %.4f of their deviation; the loop's first %d tokens are the same\n",
			r.name, r.bits, r.bytes, r.agreed, newTokens, r.worst, r.same)
		results = append(results, r)
	}
	return results, nil
}

// generate appends newTokens tokens to the prompt greedily and returns all, with the logits that
// chose each. Tokens are causal, so one graph for the full length serves all steps: what lies
// behind the last token is not seen.
func generate(backend compute.Backend, store *model.Store, prompt []int32, newTokens int) (tokens []int32, logits [][]float32, err error) {
	exec, err := model.NewExec(backend, store, func(scope *model.Scope, tokens, last *graph.Node) *graph.Node {
		all := uncached(scope, tokens) // [1, T, vocabulary]
		zero := graph.Const(last.Graph(), int32(0))
		return graph.Reshape(graph.DynamicSlice(all, []*graph.Node{zero, last, zero}, []int{1, 1, vocabulary}), vocabulary)
	})
	if err != nil {
		return nil, nil, err
	}
	tokens = append(make([]int32, 0, len(prompt)+newTokens), prompt...)
	for range newTokens {
		padded := append(append([]int32{}, tokens...), make([]int32, cap(tokens)-len(tokens))...)
		out, err := exec.Call([][]int32{padded}, int32(len(tokens)-1))
		if err != nil {
			return nil, nil, err
		}
		step := tensors.MustCopyFlatData[float32](out[0])
		logits = append(logits, step)
		tokens = append(tokens, int32(best(step)))
	}
	return tokens, logits, nil
}

// follow sends the prompt and then token after token through a cache, compares the logits of each
// step, and then generates by the loop on the device.
func follow(backend compute.Backend, store *model.Store, config kvq.Config, tokens []int32, want [][]float32, prompt int) (result, error) {
	ctx := context.Background()
	plan, err := kvq.New(config, kvq.Shape{Layers: layerCount, Batch: 1, KVHeads: kvHeads, HeadDim: headDim, Capacity: len(tokens), DType: dtypes.Float32})
	if err != nil {
		return result{}, err
	}
	session, err := kvq.NewSession(backend, store, plan, func(scope *model.Scope, cache kvq.Cache, inputs []*graph.Node) []*graph.Node {
		return []*graph.Node{cached(scope, cache, inputs[0])}
	})
	if err != nil {
		return result{}, err
	}
	defer session.Finalize()

	out, err := session.Prefill(ctx, [][]int32{tokens[:prompt]})
	r := result{bits: plan.BitsPerValue()}
	for i, logits := range want {
		if err != nil {
			return result{}, err
		}
		all := tensors.MustCopyFlatData[float32](out[0]) // [1, t, vocabulary]
		r.compare(all[len(all)-vocabulary:], logits)
		out, err = session.Step(ctx, [][]int32{{tokens[prompt+i]}})
	}
	if err != nil {
		return result{}, err
	}
	memory, err := session.Memory()
	if err != nil {
		return result{}, err
	}
	r.bytes = memory.Total()

	session.Reset()
	if _, err := session.Prefill(ctx, [][]int32{tokens[:prompt]}); err != nil {
		return result{}, err
	}
	r.generated, err = session.Generate(ctx, kvq.Generation{MaxTokens: len(want)})
	return r, err
}

// compare counts one step's logits.
func (r *result) compare(got, want []float32) {
	if best(got) == best(want) {
		r.agreed++
	}
	sum, squares := 0.0, 0.0
	for _, x := range want {
		sum, squares = sum+float64(x), squares+float64(x)*float64(x)
	}
	n := float64(len(want))
	deviation := math.Sqrt(squares/n - sum/n*sum/n)
	for i := range got {
		r.worst = max(r.worst, math.Abs(float64(got[i]-want[i]))/deviation)
	}
}

// best is the index of the largest logit.
func best(logits []float32) int {
	at := 0
	for i, x := range logits {
		if x > logits[at] {
			at = i
		}
	}
	return at
}
