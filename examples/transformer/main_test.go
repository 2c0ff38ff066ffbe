package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/kvqbook/kvqbook/internal/testbackend"
	"github.com/kvqbook/kvqbook/internal/testlane"
)

// GoMLX's transformer answers the same with a full-precision cache, nearly the same with quantized
// ones.
func TestCachesFollowTheModelWithoutOne(t *testing.T) {
	testlane.Slow(t, "compiles a model with five caches")
	var out bytes.Buffer
	// the presets' windows of 64 give up a group of 64 behind 4 sinks, so the first goes at 132
	const tokens = 130
	results, err := run(&out, testbackend.XLA(t), tokens)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("\n%s", &out)
	if n := strings.Count(out.String(), "\n"); n != 1+len(results) || len(results) != 5 {
		t.Errorf("%d lines for %d caches", n, len(results))
	}
	limits := map[string]float64{"full precision": 1e-4, "tutorial": 0.5, "quality": 0.05, "balanced": 0.3, "smallest": 0.8}
	for _, r := range results {
		if r.worst > limits[r.name] {
			t.Errorf("%s: logits differ by %v of their deviation, wanted at most %v", r.name, r.worst, limits[r.name])
		}
		if r.name != "full precision" && (r.worst < 1e-4 || r.bits > 10) {
			t.Errorf("%s: logits differ by %v, %v bits a value: nothing was quantized", r.name, r.worst, r.bits)
		}
	}
	if tutorial := results[1]; tutorial.bytes >= results[0].bytes {
		t.Errorf("the tutorial's cache takes %d bytes, the one in full precision %d", tutorial.bytes, results[0].bytes)
	}
	if results[0].agreed != tokens {
		t.Errorf("with a cache in full precision %d of %d tokens agree", results[0].agreed, tokens)
	}
	if results[0].same != tokens {
		t.Errorf("by the loop, with a cache in full precision, the first %d of %d tokens agree", results[0].same, tokens)
	}
}
