package llama

import (
	"context"
	"runtime"
	"slices"
	"testing"

	"github.com/gomlx/compute/dtypes"

	"github.com/kvqbook/kvqbook/internal/testbackend"
	"github.com/kvqbook/kvqbook/internal/testlane"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// Packed weights are those of the file exactly: the same best tokens, and logits apart only by the
// order of sums, after a prompt and in decode steps.
func TestPackedWeightsMatchFloat32(t *testing.T) {
	testlane.Slow(t, "the small model, packed and plain")
	backend := testbackend.XLA(t)
	files, err := Open(smallModel(t))
	if err != nil {
		t.Fatal(err)
	}
	plain := mustModel(t, smallModel(t), dtypes.Float32)
	defer plain.Finalize()
	packed, err := files.Load(backend, LoadOptions{Weights: PackedWeights})
	if err != nil {
		t.Fatal(err)
	}
	defer packed.Finalize()
	if got, want := packed.Bytes(), plain.Bytes()/4; got > want {
		t.Errorf("packed weights take %d bytes, want at most a quarter of %d", got, plain.Bytes())
	}
	prompts := [][]int32{{19556, 28, 638, 359, 346, 47, 339, 5248, 1535, 288, 724, 346}, {57, 744, 2045, 288, 13087, 288, 451, 4614, 1701, 339, 744, 253}}
	const rows = 2
	var results []*Result
	forced := [][]int32{{339, 5248, 1535}, {339, 744, 1834}}
	for _, m := range []*Model{plain, packed} {
		g := mustGenerator(t, m, kvq.Config{})
		r, err := g.Generate(context.Background(), tokenizer.Batch{IDs: prompts[:rows]}, GenerateConfig{TeacherForced: forced, KeepLogits: true})
		if err != nil {
			t.Fatal(err)
		}
		results = append(results, r)
	}
	for step := range results[0].Logits {
		for row := range rows {
			want, got := results[0].Logits[step][row], results[1].Logits[step][row]
			if d := worst(t, got, want); d > 1e-3 {
				t.Errorf("%d rows, step %d, row %d: logits differ by up to %g, want at most 1e-3", rows, step, row, d)
			}
			if a, b := slices.Max(want), slices.Max(got); slices.Index(want, a) != slices.Index(got, b) {
				t.Errorf("%d rows, step %d, row %d: another best token", rows, step, row)
			}
		}
	}
}

// Packed weights are read some rows at a time: the memory of Go that loading takes, all of it
// together, is a fraction of the largest weight, the embeddings of 30 MB.
func TestPackedWeightsAreReadInPieces(t *testing.T) {
	testlane.Slow(t, "reads the small model")
	backend := testbackend.XLA(t)
	files, err := Open(smallModel(t))
	if err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	m, err := files.Load(backend, LoadOptions{Weights: PackedWeights})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Finalize()
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; took > 4*pieceBytes {
		t.Errorf("loading took %d bytes of Go's memory, want at most %d", took, 4*pieceBytes)
	}
}
