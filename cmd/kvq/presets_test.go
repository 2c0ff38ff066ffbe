package main

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/kvqbook/kvqbook/internal/asset"
	"github.com/kvqbook/kvqbook/internal/cli"
	"github.com/kvqbook/kvqbook/internal/testlane"
	"github.com/kvqbook/kvqbook/kvq"
)

// Every name of --preset has a row. In float32 the tutorial's scales have 32 bits, and its bytes
// say so; its name keeps its one number. A token of the made-up model has 64 values.
func TestPresets(t *testing.T) {
	t.Setenv("COLUMNS", "80")
	model := tinyModel(t, map1("head_dim", 32))
	j := parse[presetsJSON](t, mustRun(t, "", "presets", model, "--backend", "xla:cpu", "--json"))
	if len(j.Presets) != len(cli.PresetNames()) || j.Measured != nil || j.DType != "float32" || j.Quality.Date == "" {
		t.Fatalf("%+v", j)
	}
	byName := map[string]presetJSON{}
	for i, p := range j.Presets {
		if p.Name != cli.PresetNames()[i] || p.Error != "" || p.Take == "" || p.KL == nil || p.Agreement == nil || p.Faster != nil || p.Milli != 0 {
			t.Errorf("%+v", p)
		}
		byName[p.Name] = p
	}
	// 2 layers x 2 heads x 32 x key and value = 256 values of 4 bytes; 4 bits and two scales for 32
	// values.
	if full, tutorial := byName["full"], byName["tutorial"]; full.Bits != 32 || full.Bytes != 1024 || *full.KL != 0 || tutorial.Bits != 5 || tutorial.Here != 6 ||
		tutorial.Bytes != 192 || tutorial.Exact != 64 {
		t.Errorf("%+v, %+v", full, tutorial)
	}
	if balanced, smallest := byName["balanced"], byName["smallest"]; !(*balanced.KL < *smallest.KL) || !(balanced.Bytes > smallest.Bytes) || balanced.Bits != balanced.Here || balanced.Exact <= 64 {
		t.Errorf("%+v, %+v", balanced, smallest)
	}
	for _, p := range j.Presets {
		if p.LayerBits != "" {
			t.Errorf("%s has bits of single layers, %s, in a model that nobody searched", p.Name, p.LayerBits)
		}
	}
	out := mustRun(t, "", "presets", model, "--backend", "xla:cpu")
	for _, want := range []string{"│ balanced │", "as a rule", "tutorial: 5 bits a value with 16-bit scales, 6 here", j.Quality.Model + "'s, on texts that nobody tuned on", j.Quality.Date,
		"--measure times it on this machine", "kvq layerbits does it for yours"} {
		if !strings.Contains(out, want) {
			t.Errorf("want %q in\n%s", want, out)
		}
	}
	for line := range strings.SplitSeq(out, "\n") {
		if n := utf8.RuneCountInString(line); n > 80 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	// Heads of 8 elements are too small for some caches' groups, and none is hidden.
	if small := parse[presetsJSON](t, mustRun(t, "", "presets", tinyModel(t, nil), "--json")); len(small.Presets) != len(j.Presets) {
		t.Errorf("%+v", small)
	}
	refused(t, []string{"presets", model, "--runs", "3"}, "--runs is about --measure")
	refused(t, []string{"presets", model, "--measure", "--context", "5000"}, "--context 5000, want at most 496")
	refused(t, []string{"presets", model, "--measure", "--steps", "0"}, "--steps 0, want at least 1")
}

// Where bits were spread over a model's layers, the table marks which, and a line says so; another
// flag leaves them as they are, one that asks for bits takes them away.
func TestPresetsOfASearchedModel(t *testing.T) {
	t.Setenv("COLUMNS", "80")
	model, err := asset.SmallModel()
	if err != nil {
		t.Skip(err)
	}
	out := mustRun(t, "", "presets", model, "--backend", "xla:cpu")
	// What a row keeps: 30 layers of 3 heads, a byte for two of 64 x 64 numbers and 64 scales of a
	// byte or two; 1/30 bit a value of 2,048 tokens, as docs/quality.md counts.
	for _, want := range []string{" * │", "feedback keeps up to 96 KiB of a row's prompt beside them\n(bits with it over 2,048 tokens: smallest 3.346, lower 2.846, lowest 2.479)\n",
		"*: on average; they were spread over the layers of this model"} {
		if !strings.Contains(out, want) {
			t.Errorf("want %q in\n%s", want, out)
		}
	}
	if strings.Contains(out, "kvq layerbits") {
		t.Errorf("it sends to a search that was done:\n%s", out)
	}
	for line := range strings.SplitSeq(out, "\n") {
		if n := utf8.RuneCountInString(line); n > 80 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	searched := 0
	for _, p := range parse[presetsJSON](t, mustRun(t, "", "presets", model, "--backend", "xla:cpu", "--json")).Presets {
		if p.LayerBits == "" {
			continue
		}
		searched++
		memory := func(flags ...string) string {
			j := parse[memoryJSON](t, mustRun(t, "", append([]string{"memory", "--model", model, "--measure=false", "--json", "--preset", p.Name}, flags...)...))
			return j.Cache.Config
		}
		if got := memory(); got != p.Config {
			t.Errorf("--preset %s is %q, want %q", p.Name, got, p.Config)
		}
		if got := memory("--residual-length", "32"); got != strings.Replace(p.Config, " r64", " r32", 1) {
			t.Errorf("--preset %s --residual-length 32 is %q, want %q with another window", p.Name, got, p.Config)
		}
		plain, err := kvq.Preset(p.Name)
		if err != nil {
			t.Fatal(err)
		}
		if got := memory("--layer-bits", ""); got != plain.String() {
			t.Errorf(`--preset %s --layer-bits "" is %q, want the preset of other models, %q`, p.Name, got, plain)
		}
		refused(t, []string{"layerbits", "--model", model, "--preset", p.Name, "--bits", "4"}, `--preset `+p.Name+`: its bits were spread over the layers of this model already: add --layer-bits ""`)
	}
	if searched == 0 {
		t.Error("no preset has bits of single layers in the model of the set-up")
	}
}

// map1 changes one field of a made-up model's config.json.
func map1(name string, value any) func(map[string]any) {
	return func(config map[string]any) { config[name] = value }
}

// --measure times every cache here, and says where.
func TestPresetsMeasured(t *testing.T) {
	testlane.OnlyAll(t, "compiles a step for every preset")
	needsXLA(t)
	model := tinyModel(t, map1("head_dim", 32))
	status, out, errs := runKVQ(t, "", "presets", model, "--measure", "--runs", "2", "--steps", "4", "--context", "200", "--json")
	if status != exitOK {
		t.Fatalf("status %d: %s", status, errs)
	}
	j := parse[presetsJSON](t, out)
	if m := j.Measured; m == nil || m.Context != 200 || m.Runs != 2 || m.Batch != 1 || m.Steps != 4 || m.Device == "" || m.CPU == "" {
		t.Errorf("measured %+v", j.Measured)
	}
	for _, p := range j.Presets {
		if p.Milli <= 0 || (p.Faster != nil) != (p.Name != cli.FullName) || p.Faster != nil && !(p.Faster.Median > 0) {
			t.Errorf("%+v", p)
		}
	}
	if text := mustRun(t, "", "presets", model, "--measure", "--runs", "1", "--steps", "4"); !strings.Contains(text, " ms │") || strings.Count(text, "│ x ") != len(cli.PresetNames())-1 ||
		!strings.Contains(text, "with 508 tokens in the cache") {
		t.Errorf("%s", text)
	}
}
