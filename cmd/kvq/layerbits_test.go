package main

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kvqbook/kvqbook/internal/testlane"
	"github.com/kvqbook/kvqbook/kvq"
)

// What is found goes to a file that --preset takes; what was measured is kept layer by layer: a
// search that ended early goes on, and other budgets need no search. What is of something else is
// refused, and so is what no search wrote.
func TestLayerBits(t *testing.T) {
	testlane.Slow(t, "compiles layers")
	needsXLA(t)
	dir := t.TempDir()
	model, text, other := tinyModel(t, nil), filepath.Join(dir, "text"), filepath.Join(dir, "other")
	for path, ids := range map[string][]int32{text: {5, 6, 7, 8, 9, 10, 11, 200}, other: {5, 7, 9}} {
		if err := os.WriteFile(path, []byte(strings.Repeat(tinyText(ids...), 12)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	harms, found := filepath.Join(dir, "harms.json"), filepath.Join(dir, "found.json")
	line := []string{"layerbits", "--model", model, "--backend", "xla:cpu", "--text", text, "--prefill", "8", "--preset", "lowest", "--residual-length", "8", "--harms", harms, "--json"}
	line = line[:len(line):len(line)]
	j := parse[layerBitsJSON](t, mustRun(t, "", append(line, "--bits", "6.5", "--write", found)...))
	if j.After.Bits > 6.5 || j.After.Bits <= j.Before.Bits || j.After.KL >= j.Before.KL || j.LayerBits == "" || j.Config.LayerBits != j.LayerBits {
		t.Errorf("%+v: want more bits, less divergence, and the layers that have them", j)
	}
	written, err := os.ReadFile(found)
	if err != nil {
		t.Fatal(err)
	}
	var config kvq.Config
	if err := json.Unmarshal(written, &config); err != nil || config != j.Config {
		t.Errorf("--write has %s, %v, want %s", config, err, j.Config)
	}
	if got := parse[memoryJSON](t, mustRun(t, "", "memory", "--model", model, "--measure=false", "--preset", found, "--json")); !strings.Contains(got.Cache.Config, j.LayerBits) {
		t.Errorf("--preset %s is %q, want bits %s", found, got.Cache.Config, j.LayerBits)
	}

	t.Run("goes on", func(t *testing.T) {
		kept := func() (h harmsFile) {
			text, err := os.ReadFile(harms)
			if err == nil {
				err = json.Unmarshal(text, &h)
			}
			if err != nil {
				t.Fatal(err)
			}
			return h
		}
		whole := kept()
		if len(whole.Harms.Keys) != tinyLayers {
			t.Fatalf("%d layers are kept, want %d", len(whole.Harms.Keys), tinyLayers)
		}
		// What the first layer cost is believed: with another number there, nothing else changes.
		part := whole
		some := *whole.Harms
		some.Keys, some.Values = some.Keys[:1:1], some.Values[:1:1]
		some.Keys[0][0] = 123
		part.Harms = &some
		if err := keepJSON(harms, part); err != nil {
			t.Fatal(err)
		}
		mustRun(t, "", append(line, "--bits", "7")...)
		again := kept()
		if len(again.Harms.Keys) != tinyLayers || again.Harms.Keys[0][0] != 123 || again.Harms.Keys[1][0] != whole.Harms.Keys[1][0] {
			t.Errorf("harms of keys %v, want those before, 123 first", again.Harms.Keys)
		}
	})
	t.Run("refused", func(t *testing.T) {
		refused(t, append(line, "--bits", "6.5", "--text", other), "--harms "+harms+" is of another set of texts: take another name")
		refused(t, append(line, "--bits", "6.5", "--prefill", "9"), "is of another --prefill")
		refused(t, append(line, "--bits", "8", "--nbits-key", "3"), "is of another cache")
		refused(t, append(line, "--bits", "6.5", "--harms", text), "--harms "+text+" is not what kvq layerbits wrote")
		refused(t, append(line, "--bits", "6.5", "--write", "found"), "--write found: want a name that ends in .json")
		refused(t, append(line, "--bits", "6.5", "--kinds", "-1"), "--kinds -1")
		refused(t, []string{"memory", "--model", model, "--preset", harms}, "--preset: "+harms+": want a cache as kvq layerbits --write has it")
		refused(t, []string{"memory", "--model", model, "--preset", filepath.Join(dir, "nowhere.json")}, "--preset: ", "nowhere.json")
	})
	t.Run("interrupted", func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		var errs strings.Builder
		execute(ctx, append(line, "--bits", "6.5", "--harms", filepath.Join(dir, "new.json")), strings.NewReader(""), io.Discard, &errs)
		if strings.Contains(errs.String(), "goes on there") { // nothing was kept yet
			t.Errorf("%q, want nothing of a file that is not there", errs.String())
		}
	})
}
