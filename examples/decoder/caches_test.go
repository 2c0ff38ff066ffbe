package decoder_test

import (
	"context"
	"math"
	"slices"
	"sort"
	"testing"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/kvqbook/kvqbook/kvq"
)

// With a cache the model gives the logits that it gives without one: of a prompt, and of the tokens
// after it, in two rows of different lengths.
func TestStepEqualsLogits(t *testing.T) {
	ctx, store := context.Background(), newStore()
	exec := model.MustNewExec(backend(), store, func(scope *model.Scope, ids *graph.Node) *graph.Node { return small.Logits(scope, ids) })
	text := []int32{3, 14, 15, 92, 65, 35, 89, 79, 32, 38, 46, 26}
	want := tensors.MustCopyFlatData[float32](exec.MustCall([][]int32{text})[0])
	s := newSession(kvq.Config{}, 2)
	defer s.Finalize()
	const padding, prompt = 3, 5
	rows := func(from, to int) [][]int32 { // the second row starts later, behind padding
		second := append(slices.Repeat([]int32{0}, padding), text...)
		return [][]int32{text[from:to], second[from:to]}
	}
	out, err := s.PrefillPadded(ctx, []int32{0, padding}, rows(0, prompt))
	check(err)
	for n := prompt; ; n++ {
		all := tensors.MustCopyFlatData[float32](out[0])
		logits := slices.Collect(slices.Chunk(all, small.Vocabulary))
		for row, length := range []int{n, n - padding} {
			got := logits[(row+1)*len(logits)/2-1]
			for i, w := range want[(length-1)*small.Vocabulary : length*small.Vocabulary] {
				if math.Abs(float64(got[i]-w)) > 1e-4 {
					t.Fatalf("%d tokens of row %d, logit %d: %v, without a cache %v", length, row, i, got[i], w)
				}
			}
		}
		if n == len(text) {
			return
		}
		out, err = s.Step(ctx, rows(n, n+1))
		check(err)
	}
}

// The beams of the example are the best that can be kept: found again here without a cache, on the
// host, from the logits of whole texts.
func TestBeams(t *testing.T) {
	exec := model.MustNewExec(backend(), newStore(), func(scope *model.Scope, ids *graph.Node) *graph.Node { return small.Logits(scope, ids) })
	type beam struct {
		score float64
		text  []int32
	}
	prompt := []int32{17, 4, 65, 30, 11, 90, 2, 55}
	beams := []beam{{0, nil}}
	for range 6 {
		var next []beam
		for _, b := range beams {
			all := tensors.MustCopyFlatData[float32](exec.MustCall([][]int32{slices.Concat(prompt, b.text)})[0])
			logits := all[len(all)-small.Vocabulary:]
			sum := 0.0
			for _, x := range logits {
				sum += math.Exp(float64(x))
			}
			for id, x := range logits {
				next = append(next, beam{b.score + float64(x) - math.Log(sum), append(slices.Clone(b.text), int32(id))})
			}
		}
		sort.Slice(next, func(i, j int) bool { return next[i].score > next[j].score })
		beams = next[:3]
	}
	want := []beam{{-10.126, []int32{73, 26, 20, 51, 73, 70}}, {-10.318, []int32{73, 26, 20, 51, 73, 4}}, {-10.944, []int32{73, 26, 20, 51, 73, 26}}}
	for i, b := range beams { // those that Example_beamSearch prints
		if math.Abs(b.score-want[i].score) > 1e-3 || !slices.Equal(b.text, want[i].text) {
			t.Errorf("beam %d: %.3f %v, the example says %.3f %v", i, b.score, b.text, want[i].score, want[i].text)
		}
	}
}
