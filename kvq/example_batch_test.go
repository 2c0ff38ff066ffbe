package kvq_test

import (
	"context"
	"fmt"
	"slices"

	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/kvqbook/kvqbook/kvq"
)

// oneLayerModel has one layer of attention: ids [B, t] to logits [B, t, 100].
func oneLayerModel(_ *model.Scope, cache kvq.Cache, in []*Node) []*Node {
	table := weights(in[0].Graph(), 0.9, 100, 64)
	x := attention(cache, Gather(table, ExpandAxes(in[0], -1)))
	return []*Node{DotGeneral(x, []int{2}, nil, table, []int{1}, nil)}
}

// newest is the most likely token after the last column of each row's logits [B, t, 100].
func newest(logits *tensors.Tensor) (tokens []int32) {
	for _, row := range logits.Value().([][][]float32) {
		last := row[len(row)-1]
		tokens = append(tokens, int32(slices.Index(last, slices.Max(last))))
	}
	return tokens
}

// Five requests share a batch of two rows: who is done makes room for the next, and the other row
// goes on.
func ExampleBatch() {
	ctx := context.Background()
	own := shape
	own.Batch, own.OwnLengths = 2, true
	batch := must(kvq.NewBatch(backend(), nil, must(kvq.New(kvq.Tutorial(), own)), oneLayerModel))
	defer batch.Finalize()

	type request struct {
		name   string
		prompt []int32
		wanted int // new tokens
		tokens []int32
	}
	waiting := []*request{{"Ada", []int32{5, 7, 9}, 3, nil}, {"Bo", []int32{1}, 6, nil}, {"Cy", []int32{8, 2, 4, 4, 3}, 2, nil},
		{"Di", []int32{6, 6}, 1, nil}, {"Ed", []int32{3, 1, 4, 1}, 2, nil}}
	rows := make([]*request, own.Batch)
	for {
		next, most := make([]int32, len(rows)), 0
		for row := range rows {
			r := rows[row]
			if r != nil && len(r.tokens) == r.wanted {
				fmt.Printf("%s: %d new in row %d, %d in the cache\n", r.name, len(r.tokens), row, batch.Length(row))
				r = nil
			}
			if r == nil && len(waiting) > 0 {
				r, waiting = waiting[0], waiting[1:]
				tokens, start := kvq.PadLeft([][]int32{r.prompt}, 0)
				r.tokens = newest(must(batch.Insert(ctx, []int{row}, start, tokens))[0])
			}
			rows[row], next[row] = r, -1 // the row rests
			if r == nil {
				continue
			}
			if left := r.wanted - len(r.tokens); left > 0 {
				next[row] = r.tokens[len(r.tokens)-1]
				if most == 0 || left < most {
					most = left
				}
			}
		}
		if most == 0 {
			if rows[0] == nil && rows[1] == nil {
				break
			}
			continue
		}
		made, _, err := batch.Generate(ctx, next, kvq.Generation{MaxTokens: most})
		if err != nil {
			panic(err)
		}
		for row, r := range rows {
			if r != nil {
				r.tokens = append(r.tokens, made[row]...)
			}
		}
	}
	// Output:
	// Ada: 3 new in row 0, 5 in the cache
	// Cy: 2 new in row 0, 6 in the cache
	// Di: 1 new in row 0, 2 in the cache
	// Bo: 6 new in row 1, 6 in the cache
	// Ed: 2 new in row 0, 5 in the cache
}
