package decoder_test

import (
	"context"
	"fmt"
	"slices"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/zoo/transformer/generate/sample"

	"github.com/kvqbook/kvqbook/kvq"
)

// Beam search with the rows of a batch as beams. GoMLX's [sample.BeamSearchConfig] picks the tokens
// and tells from which beam each goes on; Reorder brings the cache's rows into that order.
func Example_beamSearch() {
	const beams, newTokens = 3, 6
	prompt := []int32{17, 4, 65, 30, 11, 90, 2, 55}
	ctx, s := context.Background(), newSession(kvq.Config{}, beams)
	defer s.Finalize()
	search := sample.NewBeamSearch(beams, -1) // no token ends a text
	pick, err := graph.NewExec(backend(), func(logits, scores *graph.Node) []*graph.Node {
		last := graph.Slice(logits, graph.AxisRange(), graph.AxisElem(-1)) // [beams, 1, V]
		logits = graph.Reshape(last, beams, small.Vocabulary)
		self := graph.Iota(logits.Graph(), shapes.Make(dtypes.Int32, beams, 1), 0)
		sequences, scores, _, parents := search.Step(logits, self, scores, 0)
		tokens := graph.Slice(sequences, graph.AxisRange(), graph.AxisElem(-1))
		return []*graph.Node{graph.Reshape(tokens, beams), graph.Reshape(parents, beams), scores}
	})
	check(err)

	// All beams begin alike, so only the first one counts in the first step.
	texts, scores := make([][]int32, beams), tensors.FromValue([]float32{0, -1e9, -1e9})
	out, err := s.Prefill(ctx, slices.Repeat([][]int32{prompt}, beams))
	check(err)
	for range newTokens {
		picked, err := pick.Call(out[0], scores)
		check(err)
		tokens, parents := tensors.MustCopyFlatData[int32](picked[0]), tensors.MustCopyFlatData[int32](picked[1])
		scores = picked[2]
		before, rows, next := texts, make([]int, beams), make([][]int32, beams)
		texts = make([][]int32, beams)
		for i, parent := range parents {
			texts[i] = append(slices.Clone(before[parent]), tokens[i])
			rows[i], next[i] = int(parent), []int32{tokens[i]}
		}
		check(s.Reorder(ctx, rows))
		out, err = s.Step(ctx, next)
		check(err)
	}
	for i, text := range texts {
		fmt.Printf("%.3f %v\n", scores.Value().([]float32)[i], text)
	}
	// Output:
	// -10.126 [73 26 20 51 73 70]
	// -10.318 [73 26 20 51 73 4]
	// -10.944 [73 26 20 51 73 26]
}
