package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kvqbook/kvqbook/internal/asset"
	"github.com/kvqbook/kvqbook/internal/golden"
	"github.com/kvqbook/kvqbook/internal/testlane"
)

func TestGenerateJSON(t *testing.T) {
	needsXLA(t)
	model := tinyModel(t, nil)
	prompts := []string{tinyText(5, 6, 7), tinyText(10, 20, 30, 40, 50)}
	j := parse[generateJSON](t, mustRun(t, "", "generate", "--model", model, "--prompt", prompts[0], "--prompt", prompts[1],
		"--preset", "smallest", "--q-group-size-value", "8", "--residual-length", "8", "--max-new-tokens", "30", "--min-new-tokens", "30", "--json"))
	if j.Model != model || j.Device == "" || j.Stop != "length" || j.Interrupted {
		t.Errorf("model %q, device %q, stop %q, interrupted %v", j.Model, j.Device, j.Stop, j.Interrupted)
	}
	if j.Cache == nil || j.Cache.Bytes != j.Cache.Parts.Total() || j.Cache.Parts.Codes <= 0 || j.Cache.FullBytes <= 0 {
		t.Errorf("cache %+v, want the sum of its parts, codes among them", j.Cache)
	}
	if c := j.Cache.Config; !strings.Contains(c, "blocks keys 3 bit g64 per channel") || !strings.Contains(c, "values 3 bit g8") || !strings.Contains(c, "r8") {
		t.Errorf("cache %q, want the preset's with the flags' changes", c)
	}
	if j.Timing.Load <= 0 || j.Timing.Prefill <= 0 || j.Timing.TokensPerSecond <= 0 {
		t.Errorf("timing %+v, want all of it", j.Timing)
	}
	want := []struct{ ids, mask []int32 }{
		// the padding is the end of sequence, on the left
		{[]int32{2, 2, 5, 6, 7}, []int32{0, 0, 1, 1, 1}},
		{[]int32{10, 20, 30, 40, 50}, []int32{1, 1, 1, 1, 1}},
	}
	for i, p := range j.Prompts {
		if p.Prompt != prompts[i] || !slices.Equal(p.InputIDs, want[i].ids) || !slices.Equal(p.Mask, want[i].mask) {
			t.Errorf("prompt %d: %q %v %v", i, p.Prompt, p.InputIDs, p.Mask)
		}
		if len(p.OutputIDs) != 30 || p.Text != textOf(p.OutputIDs) {
			t.Errorf("prompt %d: %d new tokens with text %q, want 30 with %q", i, len(p.OutputIDs), p.Text, textOf(p.OutputIDs))
		}
	}
}

// textOf is what the tiny tokenizer makes of ids: special ones have no text.
func textOf(ids []int32) string {
	return tinyText(slices.DeleteFunc(slices.Clone(ids), func(id int32) bool { return id < 3 })...)
}

// The text on standard output is the prompt and what JSON says comes after it, for one prompt and
// for several.
func TestGenerateText(t *testing.T) {
	testlane.Slow(t, "compiles a made-up model for every way to give prompts; TestGenerateJSON is the small generation")
	needsXLA(t)
	model := tinyModel(t, nil)
	a, b := tinyText(5, 6, 7), tinyText(10, 20, 30)
	run := func(in string, more ...string) string {
		return mustRun(t, in, append([]string{"generate", "--model", model, "--cache", "full", "--max-new-tokens", "25"}, more...)...)
	}
	j := parse[generateJSON](t, run("", "--prompt", a, "--prompt", b, "--json"))
	if j.Cache.Bytes != j.Cache.FullBytes || j.Cache.Parts.Full == 0 {
		t.Errorf("cache %+v, want the full-precision one", j.Cache)
	}
	if got, want := run("", "--prompt", a), a+j.Prompts[0].Text+"\n"; got != want {
		t.Errorf("one prompt printed %q, want %q", got, want)
	}
	want := fmt.Sprintf("[1] %s\n[2] %s\n", a+j.Prompts[0].Text, b+j.Prompts[1].Text)
	if got := run("", "--prompt", a, "--prompt", b); got != want {
		t.Errorf("two prompts printed %q, want %q", got, want)
	}
	if got := run(a+"\r\n\n"+b, "--prompt", "-", "--lines"); got != want {
		t.Errorf("two prompts of standard input printed %q, want %q", got, want)
	}
}

// In a chat the prompt goes into the template, and the answer alone is printed.
func TestGenerateChat(t *testing.T) {
	testlane.Slow(t, "compiles a made-up model; TestGenerateJSON is the small generation")
	needsXLA(t)
	flags := []string{"generate", "--model", tinyModel(t, nil), "--cache", "full", "--prompt", tinyText(5, 6), "--chat", "--max-new-tokens", "5"}
	j := parse[generateJSON](t, mustRun(t, "", append(flags, "--json")...))
	if want := []int32{1, 5, 6}; !slices.Equal(j.Prompts[0].InputIDs, want) {
		t.Errorf("input %v, want %v: the template puts <s> first", j.Prompts[0].InputIDs, want)
	}
	if got, want := mustRun(t, "", flags...), j.Prompts[0].Text+"\n"; got != want {
		t.Errorf("printed %q, want %q", got, want)
	}
}

// Sampling depends on the seed and on nothing else; without --do-sample its settings only give a
// warning.
func TestGenerateSampling(t *testing.T) {
	testlane.Slow(t, "compiles a graph for every setting; TestGenerateJSON is the small generation")
	needsXLA(t)
	model := tinyModel(t, nil)
	full := func(more ...string) []int32 {
		args := append([]string{"generate", "--model", model, "--cache", "full", "--prompt", tinyText(9), "--max-new-tokens", "40", "--json"}, more...)
		return parse[generateJSON](t, mustRun(t, "", args...)).Prompts[0].OutputIDs
	}
	first := full("--do-sample", "--seed", "1")
	if again := full("--do-sample", "--seed", "1"); !slices.Equal(first, again) {
		t.Errorf("seed 1 gives %v, and then %v", first, again)
	}
	if other := full("--do-sample", "--seed", "2"); slices.Equal(first, other) {
		t.Errorf("seeds 1 and 2 give the same 40 tokens %v", first)
	}
	_, _, errs := runKVQ(t, "", "generate", "--model", model, "--cache", "full", "--prompt", tinyText(9), "--max-new-tokens", "1", "--temperature", "0.5", "--top-p", "1", "--quiet")
	if want := "kvq: warning: --temperature has no effect without --do-sample\n"; errs != want {
		t.Errorf("said %q, want %q", errs, want)
	}
}

// --stop cuts the text and keeps the token that completes it, --repeat-penalty changes the text,
// and what each refuses is in the words of flags.
func TestGenerateStopAndPenalty(t *testing.T) {
	for flag, want := range map[string]string{
		"--stop=": "--stop \"\", want some text", "--min-p=2 --do-sample": "--min-p 2, want 0 (no limit) to 1",
		"--repeat-penalty=-1": "--repeat-penalty -1, want above 0", "--repeat-penalty=0": "--repeat-penalty 0, want above 0",
		"--repeat-last-n=0": "--repeat-last-n 0, want 1 or more, or -1",
	} {
		args := append([]string{"generate", "--model", tinyModel(t, nil), "--prompt", tinyText(5)}, strings.Fields(flag)...)
		if status, _, errs := runKVQ(t, "", args...); status != exitBadInput || !strings.HasPrefix(errs, "kvq: "+want) {
			t.Errorf("%s: status %d, %q, want %q…", flag, status, errs, want)
		}
	}
	testlane.OnlyAll(t, "compiles a made-up model; llama.TestStopStrings and TestRepetitionPenaltyInTheLoop are what it does")
	needsXLA(t)
	model := tinyModel(t, nil)
	run := func(more ...string) generateJSON {
		args := []string{"generate", "--model", model, "--cache", "full", "--prompt", tinyText(9), "--max-new-tokens", "20", "--min-new-tokens", "20", "--json"}
		return parse[generateJSON](t, mustRun(t, "", append(args, more...)...))
	}
	plain := run().Prompts[0]
	stop := textOf(plain.OutputIDs[7:9])
	begin := strings.Index(plain.Text, stop)
	j := run("--stop", "never", "--stop", stop)
	if got := j.Prompts[0]; got.Text != plain.Text[:begin] || !strings.HasSuffix(textOf(got.OutputIDs), stop) || j.Stop != "stop" {
		t.Errorf("stop at %q: %q of tokens %v, stop %q; want the beginning of %q", stop, got.Text, got.OutputIDs, j.Stop, plain.Text)
	}
	if got := run("--repeat-penalty", "8", "--repeat-last-n", "-1").Prompts[0].OutputIDs; slices.Equal(got, plain.OutputIDs) {
		t.Errorf("a penalty of 8 gives the same %v", got)
	}
}

// The goldens' tiny models through the whole command: the tokens of transformers with both caches,
// padding included.
func TestCompareMatchesTransformersOnTinyModels(t *testing.T) {
	testlane.Slow(t, "goldens of every architecture")
	needsXLA(t)
	for _, name := range []string{"tiny-llama2", "tiny-llama2-gqa"} {
		t.Run(name, func(t *testing.T) {
			var want struct {
				Inputs map[string]struct {
					IDs  [][]int32 `json:"input_ids"`
					Mask [][]int32 `json:"attention_mask"`
				}
				Variants map[string]struct {
					Generated [][]int32 `json:"generated_ids"`
				}
			}
			dir := golden.Dir(t)
			golden.JSON(t, &want, dir, name, "goldens.json")
			model := t.TempDir()
			for _, file := range []string{"config.json", "generation_config.json", "model.safetensors"} {
				data, err := os.ReadFile(filepath.Join(dir, name, file))
				if err != nil {
					t.Fatal(err)
				}
				write(t, data, model, file)
			}
			addTokenizer(t, model)
			in := want.Inputs["len16"]
			args := []string{"compare", "--model", model, "--q-group-size", "16", "--max-new-tokens", "24", "--min-new-tokens", "24", "--json"}
			for i, row := range in.IDs {
				start := slices.Index(in.Mask[i], 1)
				args = append(args, "--prompt", tinyText(row[start:]...))
			}
			j := parse[compareJSON](t, mustRun(t, "", args...))
			full, quantized := want.Variants["len16.full"].Generated, want.Variants["len16.quanto_b4_g16_r64_ax0"].Generated
			for i, p := range j.Prompts {
				if !slices.Equal(p.InputIDs, in.IDs[i]) || !slices.Equal(p.Mask, in.Mask[i]) {
					t.Errorf("row %d: input %v %v, transformers has %v %v", i, p.InputIDs, p.Mask, in.IDs[i], in.Mask[i])
				}
				if !slices.Equal(p.Full.OutputIDs, full[i]) {
					t.Errorf("row %d: full precision gives %v, transformers %v", i, p.Full.OutputIDs, full[i])
				}
				if !slices.Equal(p.Quantized.OutputIDs, quantized[i]) {
					t.Errorf("row %d: quantized gives %v, transformers %v", i, p.Quantized.OutputIDs, quantized[i])
				}
				at := 0
				for at < len(full[i]) && full[i][at] == quantized[i][at] {
					at++
				}
				if p.PartAt == nil || *p.PartAt != at {
					t.Errorf("row %d: part_at %v, want %d", i, p.PartAt, at)
				}
			}
		})
	}
}

// The tutorial on the real model: `kvq compare` gives the 20 tokens that transformers gives, for
// both prompts and both caches. The goldens' weights went through float16 and these did not: where
// tokens part, it has to be at a close call.
func TestCompareIsTheTutorial(t *testing.T) {
	testlane.Slow(t, "the small model, twice")
	needsXLA(t)
	if _, err := asset.SmallModel(); err != nil {
		t.Skipf("no small model: %v", err)
	}
	type variant struct {
		Generated [][]int32 `json:"generated_ids"`
		Steps     []struct {
			IDs    [][]int32   `json:"top5_ids"`
			Logits [][]float32 `json:"top5_logits"`
		} `json:"steps"`
	}
	var want struct {
		IDs      [][]int32          `json:"input_ids"`
		Mask     [][]int32          `json:"attention_mask"`
		Variants map[string]variant `json:"variants"`
	}
	golden.JSON(t, &want, golden.Dir(t), "smollm2", "prompts.json")
	j := parse[compareJSON](t, mustRun(t, "", "compare", "--min-new-tokens", "20", "--json"))
	check := func(row int, name string, got textJSON, want variant) {
		const closeCall = 0.06 // twice what the weights' rounding changes a logit by
		ids := want.Generated[row]
		if len(got.OutputIDs) != len(ids) {
			t.Errorf("row %d, %s: %d tokens, want %d", row, name, len(got.OutputIDs), len(ids))
			return
		}
		for step, id := range got.OutputIDs {
			if id == ids[step] {
				continue
			}
			top := want.Steps[step]
			if gap := top.Logits[row][0] - top.Logits[row][1]; gap > closeCall || id != top.IDs[row][1] {
				t.Errorf("row %d, %s: token %d at step %d, transformers has %d", row, name, id, step, ids[step])
			} else {
				t.Logf("row %d, %s: parts from transformers at step %d, where its two best tokens are %g apart", row, name, step, gap)
			}
			return
		}
	}
	if len(j.Prompts) != 2 {
		t.Fatalf("%d prompts, want the tutorial's two", len(j.Prompts))
	}
	for row, p := range j.Prompts {
		if p.Prompt != tutorialPrompts[row] || !slices.Equal(p.InputIDs, want.IDs[row]) || !slices.Equal(p.Mask, want.Mask[row]) {
			t.Errorf("row %d: %q %v %v, transformers has %v %v", row, p.Prompt, p.InputIDs, p.Mask, want.IDs[row], want.Mask[row])
		}
		check(row, "full", p.Full, want.Variants["full"])
		check(row, "quantized", p.Quantized, want.Variants["quanto_b4_g32_r64"])
		t.Logf("%q: full precision %q, quantized %q", p.Prompt, p.Full.Text, p.Quantized.Text)
	}
	if j.Cache == nil || j.Cache.Bytes >= j.Cache.FullBytes || j.Cache.FullParts == nil || j.Cache.FullParts.Total() != j.Cache.FullBytes {
		t.Errorf("cache %+v, want fewer bytes than full precision", j.Cache)
	}
}

// A prompt that was saved goes on in another call as prompt and text do in one, with the cache that
// it was saved with; with an exact cache the tokens are the same. What does not fit is one line.
func TestGenerateSaveAndLoadCache(t *testing.T) {
	needsXLA(t)
	model, path := tinyModel(t, nil), filepath.Join(t.TempDir(), "cache")
	long, question := tinyText(5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22), tinyText(30, 31)
	run := func(more ...string) []string {
		return append([]string{"generate", "--model", model, "--max-new-tokens", "12", "--min-new-tokens", "12", "--quiet"}, more...)
	}
	save := append(run("--cache", "full", "--save-cache", path), "--prompt", long, "--max-new-tokens", "0", "--min-new-tokens", "0")
	if out := mustRun(t, "", save...); out != "" {
		t.Errorf("saving alone prints %q", out)
	}
	j := parse[generateJSON](t, mustRun(t, "", run("--load-cache", path, question, "--json")...))
	want := parse[generateJSON](t, mustRun(t, "", run("--cache", "full", long+question, "--json")...))
	if j.Kept != 18 || j.Cache.Config != want.Cache.Config || !slices.Equal(j.Prompts[0].OutputIDs, want.Prompts[0].OutputIDs) || !slices.Equal(j.Prompts[0].InputIDs, want.Prompts[0].InputIDs) {
		t.Errorf("%d kept, cache %s, tokens %v after %v; in one go %s, %v", j.Kept, j.Cache.Config, j.Prompts[0].OutputIDs, j.Prompts[0].InputIDs, want.Cache.Config, want.Prompts[0].OutputIDs)
	}
	other := tinyModel(t, func(c map[string]any) { c["rms_norm_eps"] = 1e-6 })
	for _, c := range []struct {
		want string
		args []string
	}{
		{"it was saved with another model", []string{"generate", "--model", other, question, "--load-cache", path}},
		{"it holds a cache of another configuration", run("--load-cache", path, question, "--preset", "smallest")},
		{"are for one prompt, got 2", run("--load-cache", path, "--prompt", "a", "--prompt", "b")},
		{"want a text that goes on", run("--load-cache", path)},
		{"saved without --chat", run("--load-cache", path, question, "--chat")},
		{"no such file", run("--load-cache", path+"x", question)},
		{"want a model on one device", run("--save-cache", path, question, "--devices", "2")},
	} {
		status, _, errs := runKVQ(t, "", c.args...)
		if status == exitOK || !strings.Contains(errs, c.want) || strings.Count(errs, "\n") != 1 {
			t.Errorf("%q: status %d, %q, want one line with %q", c.args, status, errs, c.want)
		}
	}
}
