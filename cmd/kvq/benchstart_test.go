package main

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/kvqbook/kvqbook/internal/testlane"
)

// bench start runs generate in processes of its own, which keep and find what is compiled.
func TestBenchStart(t *testing.T) {
	testlane.OnlyAll(t, "starts four processes that compile")
	needsXLA(t)
	t.Setenv(asKVQ, "1")
	out := mustRun(t, "", slices.Concat([]string{"bench", "start", "--json", "--runs", "1", "--steps", "3"}, replaced(tiny, tinyModel(t, nil), ""))...)
	var report struct {
		Rows []struct {
			Cache, Compiled string
			Whole           struct{ Min, Median float64 } `json:"whole_s"`
			Processor       struct{ Min float64 }         `json:"cpu_s"`
			Peak            int64                         `json:"host_peak_bytes"`
		}
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	var got []string
	for _, r := range report.Rows {
		got = append(got, r.Compiled)
		if r.Cache == "" || r.Whole.Min <= 0 || r.Whole.Median < r.Whole.Min || r.Processor.Min <= 0 || r.Peak < 10<<20 {
			t.Errorf("%+v", r)
		}
	}
	if !slices.Equal(got, []string{"cold", "kept", "cold", "kept"}) {
		t.Errorf("rows %q", got)
	}
}
