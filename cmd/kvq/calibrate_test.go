package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kvqbook/kvqbook/internal/testlane"
)

// A calibration is written beside the model and used from there, or goes where --calibration says.
// Without one, the command that makes it is named, and nothing is coded without.
func TestCalibrate(t *testing.T) {
	testlane.Slow(t, "compiles a layer")
	needsXLA(t)
	model, text := tinyModel(t, nil), filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte(strings.Repeat(tinyText(5, 6, 7, 8, 9, 10, 11, 200), 12)), 0o644); err != nil {
		t.Fatal(err)
	}
	evaluate := []string{"evaluate", "--model", model, "--text", text, "--prefill", "48", "--backend", "xla:cpu", "--preset", "lowest", "--residual-length", "8", "--feedback-key"}
	evaluate = evaluate[:len(evaluate):len(evaluate)]
	status, out, errs := runKVQ(t, "", append(evaluate, "calibrated")...)
	if want := "kvq: calibrated feedback of keys needs " + model + ".kvq-queries, and there is none: kvq calibrate --model " + model + " --text FILE makes it\n"; status != exitBadInput || out != "" || !strings.HasSuffix(errs, want) {
		t.Errorf("without a calibration: status %d, %q, %q, want %q", status, out, errs, want)
	}
	out = mustRun(t, "", "calibrate", "--model", model, "--text", text, "--text", text, "--backend", "xla:cpu")
	if want := "calibrated on 192 tokens: " + model + ".kvq-queries, 1.5 KiB\n"; out != want {
		t.Errorf("%q, want %q", out, want)
	}
	elsewhere := filepath.Join(t.TempDir(), "queries")
	mustRun(t, tinyText(7, 8, 9), "calibrate", "--model", model, "--text", "-", "--backend", "xla:cpu", "--calibration", elsewhere)
	for _, c := range []struct {
		want string
		args []string
	}{
		{"no text to calibrate with: name files with --text", []string{"calibrate", "--model", model}},
		{"--calibration " + os.TempDir() + " is a folder", []string{"calibrate", "--model", model, "--text", text, "--calibration", os.TempDir()}},
		{"is empty", []string{"calibrate", "--model", model, "--text", os.DevNull}},
		{elsewhere + "2: no such file", append(evaluate, "calibrated", "--calibration", elsewhere+"2")},
		{text + ": want a file of kvq calibrate", append(evaluate, "calibrated", "--calibration", text)},
		{elsewhere + ": it was made for another model than", []string{"generate", "--model", tinyModel(t, func(config map[string]any) { config["rope_theta"] = 5000.0 }),
			"--prompt", tinyText(5), "--preset", "lowest", "--feedback-key", "calibrated", "--calibration", elsewhere, "--backend", "xla:cpu"}},
	} {
		if status, out, errs := runKVQ(t, "", c.args...); status != exitBadInput || out != "" || !strings.Contains(errs, c.want) {
			t.Errorf("kvq %q: status %d, %q, %q, want %q", c.args, status, out, errs, c.want)
		}
	}

	t.Run("used", func(t *testing.T) {
		testlane.OnlyAll(t, "two caches that generate and score take many seconds to compile; package llama has a test of both")
		for _, source := range []string{"calibrated", "weights"} {
			r := parse[generateJSON](t, mustRun(t, "", "generate", "--model", model, "--prompt", tinyText(5, 6, 7), "-n", "1", "--backend", "xla:cpu", "--preset", "lowest",
				"--feedback-key", source, "--json"))
			if want := int64(tinyLayers * tinyKVHeads * (2 + 1) * tinyHeadDim); r.Cache.Parts.SharedMetric != want {
				t.Errorf("%s: %d bytes of metrics that rows share, want %d", source, r.Cache.Parts.SharedMetric, want)
			}
		}
		figures := map[string]float64{}
		for _, source := range []string{"calibrated", "weights"} {
			figures[source] = *parse[evaluateJSON](t, mustRun(t, "", append(evaluate, source, "--json")...)).All.KL
		}
		if figures["calibrated"] == figures["weights"] || figures["calibrated"] <= 0 || figures["weights"] <= 0 {
			t.Errorf("divergences %v, want two that are above 0 and differ", figures)
		}
	})
}
