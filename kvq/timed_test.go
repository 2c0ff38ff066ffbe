package kvq_test

import (
	"slices"
	"time"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
)

// timed calls a graph once, which compiles it, and then n times until its first result is there:
// how long the first call took, and the others, from the shortest.
func timed(exec *graph.Exec, input *tensors.Tensor, n int) (first time.Duration, times []time.Duration) {
	call := func() time.Duration {
		start := time.Now()
		out := exec.MustCall(input)
		out[0].MustConstFlatData(func(any) {})
		took := time.Since(start)
		for _, x := range out {
			x.MustFinalizeAll()
		}
		return took
	}
	first = call()
	for range n {
		times = append(times, call())
	}
	slices.Sort(times)
	return first, times
}
