package main

import (
	"fmt"
	"strings"
	"testing"
)

func TestMemory(t *testing.T) {
	needsXLA(t)
	flags := []string{"memory", "--model", tinyModel(t, nil), "--q-group-size", "8", "--residual-length", "16"}
	j := parse[memoryJSON](t, mustRun(t, "", append(flags, "--batch", "3", "--context", "200", "--json")...))
	if j.Measured == nil {
		t.Fatal("nothing measured, want it for so small a cache")
	}
	if j.Measured.Parts != j.Cache.Parts || j.Measured.Bytes != j.Cache.Bytes || j.Cache.Bytes != j.Cache.Parts.Total() {
		t.Errorf("predicted %+v, measured %+v", j.Cache, *j.Measured)
	}
	// 2 (key, value) x 2 layers x 3 rows x 200 tokens x 2 heads x 8 values x 4 bytes, and the index.
	if full := j.Cache.FullBytes - 2*2*3*200*2*8*4; full < 0 || full > 64 {
		t.Errorf("full precision takes %d bytes more than its keys and values, want a few for the index", full)
	}
	parameters := int64(2*tinyVocab*tinyHidden + tinyHidden + tinyLayers*(2*tinyHidden+
		2*tinyHidden*tinyHeads*tinyHeadDim+2*tinyHidden*tinyKVHeads*tinyHeadDim+3*tinyHidden*tinyInner))
	if j.Weights.Parameters != parameters || j.Weights.Bytes != 4*parameters || j.DType != "float32" {
		t.Errorf("weights %+v of %s, want %d parameters of float32", j.Weights, j.DType, parameters)
	}
	names := map[string]configuredJSON{}
	for _, c := range j.Configurations {
		names[c.Name] = c
	}
	for _, name := range []string{"full precision", "tutorial", "as asked", "quality", "balanced", "smallest"} {
		if _, ok := names[name]; !ok {
			t.Errorf("no configuration %q among %+v", name, j.Configurations)
		}
	}
	if c := names["as asked"]; c.Bytes != j.Cache.Bytes || c.WithWeights != j.Cache.Bytes+j.Weights.Bytes {
		t.Errorf("as asked %+v, the cache takes %d", c, j.Cache.Bytes)
	}
	if names["tutorial"].Error == "" { // groups of 32 in heads of 8
		t.Errorf("tutorial %+v, want the reason why this model cannot have it", names["tutorial"])
	}
}

// The longest context is the last that fits: one token more does not.
func TestMemoryLongestContext(t *testing.T) {
	model := tinyModel(t, nil)
	at := func(context, limit string) memoryJSON {
		return parse[memoryJSON](t, mustRun(t, "", "memory", "--model", model, "--cache", "full", "--context", context,
			"--batch", "5", "--max-memory", limit, "--measure=false", "--json"))
	}
	find := func(j memoryJSON) configuredJSON {
		for _, c := range j.Configurations {
			if c.Name == "full precision" {
				return c
			}
		}
		t.Fatal("no full precision")
		return configuredJSON{}
	}
	limit := find(at("300", "1GiB")).WithWeights

	for _, c := range []struct {
		limit int64
		want  int
	}{{limit, 300}, {limit - 1, 299}, {1 << 30, tinyContext}, {1000, 0}} {
		if got := find(at("100", fmt.Sprintf("%dB", c.limit))).LongestContext; got == nil || *got != c.want {
			t.Errorf("in %d bytes: longest context %v, want %d", c.limit, got, c.want)
		}
	}
}

func TestMemoryText(t *testing.T) {
	needsXLA(t)
	model := tinyModel(t, nil)
	flags := []string{"memory", "--model", model, "--q-group-size", "8", "--residual-length", "16"}
	out := mustRun(t, "", append(flags, "--context", "200", "--max-memory", "1MiB")...)
	for _, want := range []string{"parameters", "values of a token = 2 (key, value) x 2 layers x 2 KV heads x head dim 8 = 64", "predicted", "measured",
		"codes", "zero points", "window", "balanced", "longest context in 1.0 MiB"} {
		if !strings.Contains(out, want) {
			t.Errorf("want %q in\n%s", want, out)
		}
	}
	out = mustRun(t, "", "memory", "--model", model, "--cache", "full", "--measure=false")
	if want := "bytes = batch 1 x 512 tokens x values of a token x 4 bytes = 131,072"; !strings.Contains(out, want) {
		t.Errorf("want %q in\n%s", want, out)
	}
}
