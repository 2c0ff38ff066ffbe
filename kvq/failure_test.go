package kvq_test

import (
	"context"
	"runtime/debug"
	"testing"

	"github.com/gomlx/go-xla/pjrt"

	"github.com/kvqbook/kvqbook/internal/testbackend"
	"github.com/kvqbook/kvqbook/internal/testlane"
	. "github.com/kvqbook/kvqbook/kvq"
)

// A step that fails loses the cache, and frees its memory at once: Go's garbage collector, that
// knows nothing of a device's memory, is off here.
func TestFailedStepFreesTheCache(t *testing.T) {
	testlane.Slow(t, "compiles a decoder")
	ctx := context.Background()
	store := decoderStore()
	s, err := NewSession(testbackend.XLA(t), store, decoderPlan(t, Config{}, 1, 64), layersDecoder)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Finalize()
	prompt := [][]int32{{1, 2, 3}}
	if _, err := s.Prefill(ctx, prompt); err != nil { // makes the weights
		t.Fatal(err)
	}
	if _, err := s.Step(ctx, [][]int32{{4}}); err != nil {
		t.Fatal(err)
	}
	s.Reset()
	before := debug.SetGCPercent(-1)
	defer debug.SetGCPercent(before)
	empty := pjrt.BuffersAlive()
	if _, err := s.Prefill(ctx, prompt); err != nil {
		t.Fatal(err)
	}
	if held := pjrt.BuffersAlive() - empty; held < 4 { // two counters, keys, values
		t.Fatalf("%d buffers of a cache with a prompt, want 4 at least", held)
	}
	bias := store.GetVariable("/layer_0/ff/dense/biases")
	if bias == nil {
		t.Fatal("the decoder has no such variable")
	}
	if err := bias.MustValue().FinalizeAll(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Step(ctx, [][]int32{{4}}); err == nil {
		t.Fatal("a step without a weight gave no error")
	}
	s.Reset() // the outputs of the prompt, not the cache: that is the session's no longer
	if left := pjrt.BuffersAlive() - (empty - 1); left != 0 {
		t.Errorf("%d buffers are left of a cache that is lost", left)
	}
}
