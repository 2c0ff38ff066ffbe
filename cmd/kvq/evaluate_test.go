package main

import (
	"math"
	"strings"
	"testing"

	"github.com/kvqbook/kvqbook/internal/testlane"
)

func TestEvaluate(t *testing.T) {
	testlane.Slow(t, "compiles the evaluation with two caches")
	needsXLA(t)
	model, dir := tinyModel(t, nil), t.TempDir()
	var ids []int32
	for i := range int32(150) {
		ids = append(ids, 3+(i*i*7+i)%200)
	}
	long := write(t, []byte(tinyText(ids...)), dir, "long.txt")
	short := write(t, []byte(tinyText(ids[:40]...)), dir, "short.txt")
	flags := []string{"--text", long, "--text", short, "--prefill", "20", "--max-tokens", "120"}

	t.Run("quantized", func(t *testing.T) {
		j := parse[evaluateJSON](t, mustRun(t, "", append([]string{"evaluate", "--model", model, "--q-group-size", "8", "--residual-length", "16",
			"--nbits", "2", "--json"}, flags...)...))
		if len(j.Rows) != 2 || j.Rows[0].Text != long || j.Rows[1].Text != short {
			t.Fatalf("rows %+v, want one a text, by name", j.Rows)
		}
		// Texts of different length in one batch: 120 - 20 and 40 - 20 positions.
		if j.Rows[0].Tokens != 100 || j.Rows[1].Tokens != 20 || j.All.Tokens != 120 {
			t.Errorf("%d, %d, all %d tokens scored; want 100, 20, 120", j.Rows[0].Tokens, j.Rows[1].Tokens, j.All.Tokens)
		}
		for _, r := range append(j.Rows, *j.All) {
			if *r.KL <= 0 || *r.Agreement < 0 || *r.Agreement > 1 || math.Abs(math.Exp(*r.NLL)/(*r.Perplexity)-1) > 1e-9 {
				t.Errorf("KL %g, agreement %g, NLL %g, perplexity %g", *r.KL, *r.Agreement, *r.NLL, *r.Perplexity)
			}
		}
		if want := (100**j.Rows[0].NLL + 20**j.Rows[1].NLL) / 120; math.Abs(*j.All.NLL-want) > 1e-6 {
			t.Errorf("NLL of all %g, want the mean over tokens %g", *j.All.NLL, want)
		}
		// 2 bits, and two float32 numbers for every 8 values.
		if j.Cache.BitsPerValue == nil || *j.Cache.BitsPerValue != 2+64.0/8 {
			t.Errorf("bits a value %v, want 10", j.Cache.BitsPerValue)
		}
	})
	t.Run("full against full", func(t *testing.T) {
		out := mustRun(t, "", append([]string{"evaluate", "--model", model, "--cache", "full"}, flags...)...)
		for _, want := range []string{"│ text ", "│ perplexity │", "│ 0.000000 │ 100.00 % │\n", "long.txt", "short.txt", "│ all ", "full precision: 32 bits a value"} {
			if !strings.Contains(out, want) {
				t.Errorf("want %q in\n%s", want, out)
			}
		}
	})
}
