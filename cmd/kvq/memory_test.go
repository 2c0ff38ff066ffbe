package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/kvqbook/kvqbook/internal/testlane"
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
	// 2 (key, value) x 2 layers x 3 rows x 200 tokens x 2 heads x 8 values x 4 bytes, and the
	// index.
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
	for _, name := range []string{"full precision", "tutorial", "as asked", "quality", "balanced", "smallest", "lower", "lowest"} {
		if _, ok := names[name]; !ok {
			t.Errorf("no configuration %q among %+v", name, j.Configurations)
		}
	}
	if c := names["as asked"]; c.Bytes != j.Cache.Bytes || c.WithWeights != j.Cache.Bytes+j.Weights.Bytes {
		t.Errorf("as asked %+v, the cache takes %d", c, j.Cache.Bytes)
	}
	if got := names["tutorial"].Config; got != "quanto 4 bit g8 r64" { // groups of 32 do not fit heads of 8
		t.Errorf("the tutorial's configuration is %q, want groups of 8", got)
	}
}

// The longest context is the last that fits: one token more does not. Likewise the most rows.
func TestMemoryFits(t *testing.T) {
	model := tinyModel(t, nil)
	at := func(batch, context int, limit int64) memoryJSON {
		return parse[memoryJSON](t, mustRun(t, "", "memory", "--model", model, "--cache", "full", "--context", fmt.Sprint(context),
			"--batch", fmt.Sprint(batch), "--max-memory", fmt.Sprintf("%dB", limit), "--measure=false", "--json"))
	}
	full := func(j memoryJSON) configuredJSON {
		for _, c := range j.Configurations {
			if c.Name == "full precision" {
				return c
			}
		}
		t.Fatal("no full precision")
		return configuredJSON{}
	}
	j := at(5, 384, 1<<30)
	if j.Fits == nil || !*j.Fits || j.Room.Source != "--max-memory" || j.Needs.Weights != j.Weights.Bytes || j.Needs.Cache != j.Cache.Parts || j.Needs.Work == 0 {
		t.Errorf("%+v in %+v: want it to fit, and weights and cache as predicted above", j.Needs, j.Room)
	}
	limit := j.Needs.Total()
	if c := full(at(5, 100, limit)); *c.LongestContext != 384 {
		t.Errorf("in %d bytes: longest context %d, want 384", limit, *c.LongestContext)
	}
	if c := full(at(1, 384, limit)); *c.MostRows != 5 {
		t.Errorf("in %d bytes: most rows %d, want 5", limit, *c.MostRows)
	}
	if less := at(5, 384, limit-1); *less.Fits || *full(less).LongestContext >= 384 || *full(less).MostRows != 4 {
		t.Errorf("in a byte less: %v, %+v, want it not to fit", *less.Fits, full(less))
	}
	if c := full(at(5, 100, 1<<30)); *c.LongestContext != tinyContext {
		t.Errorf("longest context %d, want all %d", *c.LongestContext, tinyContext)
	}
	if c := full(at(5, 100, 1000)); *c.LongestContext != 0 || *c.MostRows != 0 {
		t.Errorf("in 1000 bytes: %+v, want nothing to fit", c)
	}
}

// --measure asks XLA what its graphs need; the room is the machine's.
func TestMemoryCompiled(t *testing.T) {
	testlane.Slow(t, "compiles a made-up model")
	needsXLA(t)
	j := parse[memoryJSON](t, mustRun(t, "", "memory", "--model", tinyModel(t, nil), "--cache", "full", "--context", "200", "--measure", "--json"))
	if j.Compiled == nil || j.Compiled.Prompt.Temporary == 0 || j.Compiled.Step.Inputs < j.Weights.Bytes || j.Compiled.Step.Reused != j.Cache.Bytes {
		t.Errorf("compiled %+v, want XLA's figures, and all %d bytes of the cache written in place", j.Compiled, j.Cache.Bytes)
	}
	if j.Room == nil || j.Room.Bytes < 1<<20 || j.Fits == nil || !*j.Fits {
		t.Errorf("room %+v, want the machine's memory", j.Room)
	}
}

// refused runs a command that is to be refused as bad input in one line with these parts.
func refused(t *testing.T, args []string, parts ...string) {
	t.Helper()
	status, out, errs := runKVQ(t, "", args...)
	if status != exitBadInput || out != "" || strings.Count(errs, "\n") != 1 {
		t.Errorf("kvq %q: status %d, %q on standard output, error %q; want one line and status %d", args, status, out, errs, exitBadInput)
	}
	for _, part := range parts {
		if !strings.Contains(errs, part) {
			t.Errorf("kvq %q: want %q in the error, got %q", args, part, errs)
		}
	}
}

// What cannot fit is refused in one line, before anything is loaded, with what would fit instead.
func TestRunsThatDoNotFit(t *testing.T) {
	testlane.Slow(t, "opens a device for every run")
	needsXLA(t)
	model := tinyModel(t, nil)
	text := t.TempDir() + "/text"
	if err := os.WriteFile(text, []byte(strings.Repeat("a text of some length ", 20)), 0o600); err != nil {
		t.Fatal(err)
	}
	quantized := []string{"--q-group-size", "8", "--residual-length", "16"}
	for _, args := range [][]string{
		append([]string{"generate", "--prompt", "Hello"}, quantized...),
		append([]string{"compare", "--prompt", "Hello"}, quantized...),
		append([]string{"evaluate", "--text", text, "--prefill", "8"}, quantized...),
		append([]string{"bench", "decode", "--tokens", "64", "--batches", "1", "--runs", "1", "--steps", "4"}, quantized...),
	} {
		refused(t, append(args, "--model", model, "--max-memory", "10kB"), "the run does not fit: weights", "9.8 KiB (--max-memory); not even one token would fit")
		refused(t, append(args, "--model", model, "--max-memory", "much"), `--max-memory "much", want a size such as 16GiB or 800MB`)
	}
	// Enough for fewer rows and fewer tokens.
	refused(t, []string{"generate", "--model", model, "--prompt", "a", "--prompt", "b", "--prompt", "c", "--cache", "full", "--max-new-tokens", "400", "--max-memory", "800kB"},
		"this fits:", "a batch of 2", "new tokens")
	mustRun(t, "", "generate", "--model", model, "--prompt", "a", "--cache", "full", "--max-new-tokens", "4", "--max-memory", "2MB")
}

func TestMemoryText(t *testing.T) {
	needsXLA(t)
	model := tinyModel(t, nil)
	flags := []string{"memory", "--model", model, "--q-group-size", "8", "--residual-length", "16"}
	out := mustRun(t, "", append(flags, "--context", "200", "--max-memory", "1MiB")...)
	for _, want := range []string{"parameters", "values of a token = 2 (key, value) x 2 layers x 2 KV heads x head dim 8 = 64", "predicted", "measured",
		"codes", "zero points", "window", "balanced", "longest context", "most rows", "room:    1.0 MiB (--max-memory): it"} {
		if !strings.Contains(out, want) {
			t.Errorf("want %q in\n%s", want, out)
		}
	}
	out = mustRun(t, "", "memory", "--model", model, "--cache", "full", "--measure=false")
	if want := "bytes = batch 1 x 512 tokens x values of a token x 4 bytes = 131,072"; !strings.Contains(out, want) {
		t.Errorf("want %q in\n%s", want, out)
	}
}

// All tables fit 80 columns. A cache has one number of bits, and a note where it takes more here;
// the window is told apart.
func TestMemoryTables(t *testing.T) {
	t.Setenv("COLUMNS", "80")
	model := tinyModel(t, nil)
	flags := []string{"memory", "--model", model, "--context", "200", "--max-memory", "16GiB", "--measure=false"}
	out := mustRun(t, "", flags...)
	for line := range strings.SplitSeq(out, "\n") {
		if n := utf8.RuneCountInString(line); n > 80 && strings.ContainsAny(line, "│┌├└") {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	// 4 bits, and scale and zero point of 16 bits for 8 values; in float32 they have 32 bits. The
	// window has 64 tokens of 64 values of 4 bytes.
	for _, want := range []string{"│ window │", "│ tutorial       │ 8 ", "│ 16 KiB │", "tutorial: 8 bits a value with 16-bit scales, 12 here, where scales have more bits\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("want %q in\n%s", want, out)
		}
	}
	if half := mustRun(t, "", append(flags, "--dtype", "float16")...); !strings.Contains(half, "│ tutorial       │ 8 ") || strings.Contains(half, "16-bit scales") {
		t.Errorf("in float16:\n%s", half)
	}
}
