package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/kvq"
)

// Bad input is one line that says what was wanted and what came, status 2, and nothing on standard
// output.
func TestBadInput(t *testing.T) {
	good := tinyModel(t, nil)
	dir := t.TempDir()
	text := write(t, []byte("no plugin"), dir, "plugin.so")
	noBackend := write(t, []byte(`{"NBits": 4}`), dir, "preset.json")
	noObject := write(t, []byte(`[4]`), dir, "list.json")
	short := write(t, []byte(tinyText(5, 6, 7)), dir, "short.txt")
	binary := write(t, []byte("text\xff"), dir, "binary")
	long := write(t, []byte(strings.Repeat(tinyText(5), tinyContext+1)), dir, "long.txt")
	cut := tinyModel(t, nil)
	if err := os.Truncate(filepath.Join(cut, "model.safetensors"), 5000); err != nil {
		t.Fatal(err)
	}
	stranger := tinyModel(t, func(c map[string]any) { c["model_type"], c["architectures"] = "gpt2", []string{"GPT2LMHeadModel"} })
	without := tinyModel(t, func(c map[string]any) { delete(c, "hidden_size") })
	absurd := tinyModel(t, func(c map[string]any) { c["num_attention_heads"] = -4 })
	// Flags that make the tutorial's cache fit the tiny heads.
	fits := func(args ...string) []string { return append(args, "--model", good, "--q-group-size", "8") }
	for _, c := range []struct {
		name string
		args []string
		in   string
		want []string
	}{
		{"no such command", []string{"genrate", "--prompt", "x"}, "", []string{`"genrate"`, "want one of", "generate"}},
		{"no such flag", fits("generate", "--promt", "x"), "", []string{"--promt", "kvq generate --help"}},
		{"a flag of another command", []string{"devices", "--prompt", "x"}, "", []string{"--prompt"}},
		{"a number that is none", fits("generate", "--nbits", "four"), "", []string{"--nbits four: want a whole number"}},
		{"two arguments", fits("generate", "hello", "you"), "", []string{"want one text", "hello | you"}},

		{"missing model", []string{"generate", "--model", filepath.Join(dir, "nowhere.gguf")}, "", []string{"nowhere.gguf", "no such file"}},
		{"model that is none", []string{"generate", "--model", short}, "", []string{"short.txt", "want a .gguf file"}},
		{"cut-off model", []string{"generate", "--model", cut}, "", []string{"model.safetensors", "cut off"}},
		{"another architecture", []string{"generate", "--model", stranger}, "", []string{"gpt2", "llama"}},
		{"absent field", []string{"compare", "--model", without}, "", []string{"hidden_size"}},
		{"absurd field", []string{"memory", "--model", absurd}, "", []string{"num_attention_heads", "-4"}},
		{"unknown dtype", fits("generate", "--dtype", "int8"), "", []string{"int8", "float32, float16, bfloat16"}},

		{"unknown device", fits("generate", "--backend", "tpu"), "", []string{`"tpu"`, "xla:cpu"}},
		{"device that compiles nothing", fits("bench", "compile", "--backend", "go"), "", []string{"--backend go", "xla:cpu"}},
		{"plugin that is not there", fits("generate", "--backend", "xla:/nowhere/plugin.so"), "", []string{"/nowhere/plugin.so"}},
		{"plugin that does not load", fits("compare", "--backend", "xla:"+text), "", []string{"plugin.so"}},
		{"device that is none", []string{"devices", "--backend", "xla:" + text}, "", []string{"plugin.so"}},
		{"heads that devices cannot share", fits("generate", "--devices", "4"), "", []string{"--devices 4", "2 key/value heads", "want one of: 1, 2"}},
		{"no device at all", fits("compare", "--devices", "0"), "", []string{"--devices 0", "at least 1"}},
		{"a benchmark on devices that cannot share", []string{"bench", "decode", "--model", good, "--devices", "1,3"}, "", []string{"--devices 3", "2 key/value heads"}},

		{"kind of cache", fits("generate", "--cache", "half"), "", []string{`"half"`, "quantized or full"}},
		{"bits of a full cache", []string{"generate", "--model", good, "--cache", "full", "--nbits", "4"}, "", []string{"--nbits", "full precision"}},
		{"full cache compared with itself", fits("compare", "--cache", "full"), "", []string{"full precision", "anyway"}},
		{"backend of the cache", fits("generate", "--cache-backend", "gptq"), "", []string{`"gptq"`, "quanto", "hqq", "blocks"}},
		{"no backend of the cache", fits("generate", "--cache-backend", ""), "", []string{"--cache-backend", "quanto"}},
		{"bits that do not exist", fits("generate", "--nbits", "99"), "", []string{"kvq: --nbits: want ", usererr.OneOf(kvq.Widths()), "got 99"}},
		{"no bits", fits("generate", "--nbits", "0"), "", []string{"--nbits 0", "at least 1"}},
		{"bits of a value", fits("evaluate", "--nbits-value", "9", "--text", long), "", []string{"--nbits-value", "got 9"}},
		{"group that does not divide", []string{"generate", "--model", good, "--q-group-size", "5"}, "", []string{"divisor of the head dimension 8", "got 5"}},
		{"negative group", []string{"generate", "--model", good, "--q-group-size", "-8"}, "", []string{"--q-group-size -8"}},
		{"axis", fits("generate", "--axis-key", "3"), "", []string{"--axis-key", "got 3"}},
		{"residual length", fits("generate", "--residual-length", "0"), "", []string{"--residual-length", "got 0"}},
		{"sinks of quanto", fits("generate", "--sinks", "4"), "", []string{"--sinks", "blocks"}},
		{"scales", fits("generate", "--scales", "float64"), "", []string{"float64", "float16"}},
		{"layers' bits", fits("generate", "--layer-bits", "nonsense"), "", []string{"nonsense"}},
		{"unknown preset", fits("generate", "--preset", "best"), "", []string{`"best"`, "balanced", "quality", "smallest"}},
		{"preset file without a backend", fits("generate", "--preset", noBackend), "", []string{"preset.json", "without a backend"}},
		{"preset file of another kind", fits("generate", "--preset", noObject), "", []string{"list.json", "came a list, want an object"}},
		{"preset without a name", fits("generate", "--preset", ""), "", []string{"--preset", "balanced"}},

		{"empty prompt", fits("generate", "--prompt", ""), "", []string{"prompt 1 of 1 is empty"}},
		{"second prompt empty", fits("compare", "--prompt", tinyText(9), "--prompt", ""), "", []string{"prompt 2 of 2 is empty"}},
		{"nothing on standard input", fits("generate", "--prompt", "-"), "\n \n", []string{"standard input", "no prompt"}},
		{"prompt longer than the context", fits("generate", "--prompt", strings.Repeat(tinyText(9), tinyContext+1)), "", []string{"513 tokens", "at most 512"}},
		{"no new tokens", fits("generate", "--max-new-tokens", "0"), "", []string{"--max-new-tokens 0"}},
		{"more than the most", fits("generate", "--min-new-tokens", "30"), "", []string{"--min-new-tokens 30, want 0 to --max-new-tokens 20"}},
		{"hotter than numbers go", fits("generate", "--do-sample", "--temperature", "1e9"), "", []string{"--temperature 1e+09, want above 0 and at most 1e+06"}},
		{"temperature", fits("generate", "--do-sample", "--temperature", "0"), "", []string{"--temperature 0"}},
		{"top p", fits("generate", "--do-sample", "--top-p", "1.5"), "", []string{"--top-p 1.5"}},
		{"top k", fits("generate", "--do-sample", "--top-k", "-1"), "", []string{"--top-k -1"}},

		{"binary text", fits("evaluate", "--text", binary), "", []string{"--text", "UTF-8", "0xff"}},
		{"no text to choose by", []string{"choose", "--model", good, "--text", short}, "", []string{"short.txt", "3 tokens", "64"}},
		{"a budget of nothing", []string{"choose", "--model", good, "--max-kl", "0"}, "", []string{"--max-kl 0", "more than 0"}},
		{"a search for a folder that is not there", fits("layerbits", "--bits", "14", "--write", filepath.Join(dir, "no", "m.json")), "", []string{"--write", "there is no folder"}},
		{"a search whose notes cannot be kept", fits("layerbits", "--bits", "14", "--harms", dir), "", []string{"--harms", "is a folder"}},
		{"a cache saved to a folder", fits("generate", "--save-cache", dir), "", []string{"--save-cache", "is a folder"}},
		{"a cache saved nowhere", fits("generate", "--save-cache", filepath.Join(dir, "no", "c")), "", []string{"--save-cache", "there is no folder"}},
		{"a cache that is none", fits("generate", "--load-cache", short), "", []string{"--load-cache: " + short, "want a safetensors file"}},
		{"a cache saved under no name", fits("generate", "--save-cache", ""), "", []string{`--save-cache "", want the name of a file`}},
		{"a text without a name", fits("evaluate", "--text", long, "--text", ""), "", []string{`--text "", want the name of a file`}},
		{"no bits to spread", fits("layerbits"), "", []string{"--bits 0", "want the bits a value to spend"}},
		{"bits that are no number", fits("layerbits", "--bits", "few"), "", []string{"--bits few", "want a number"}},
		{"bits that are none", fits("layerbits", "--bits", "NaN"), "", []string{"--bits NaN", "want the bits a value to spend"}},
		{"fewer bits than the cache has", fits("layerbits", "--bits", "2"), "", []string{"--bits 2", "want at least the"}},
		{"bits of full precision", []string{"layerbits", "--model", good, "--bits", "3", "--cache", "full"}, "", []string{"full precision", "no bits to spread", "want a quantized cache"}},
		{"bits of full precision, by its preset", []string{"layerbits", "--model", good, "--bits", "3", "--preset", "full"}, "", []string{"full precision", "no bits to spread"}},
		{"bits spread already", fits("layerbits", "--bits", "14", "--layer-bits", "0=8/8"), "", []string{"--layer-bits 0=8/8", "layers are alike"}},
		{"bits by a text that is not there", fits("layerbits", "--bits", "14", "--text", filepath.Join(dir, "nowhere.txt")), "", []string{"nowhere.txt"}},
		{"bits by too short a text", fits("layerbits", "--bits", "14", "--text", short), "", []string{"short.txt", "3 tokens", "64"}},
		{"codes that have one width", fits("layerbits", "--bits", "14", "--cache-backend", "blocks", "--code-key", "int8"), "", []string{"--code-key", "int8", "8 bits in every layer"}},
		{"one preset of several", []string{"evaluate", "--model", good, "--preset", "balanced,smalest"}, "", []string{"--preset", "smalest", "did you mean smallest?"}},
		{"missing text", fits("evaluate", "--text", filepath.Join(dir, "nowhere.txt")), "", []string{"nowhere.txt"}},
		{"text shorter than the prefill", fits("evaluate", "--text", short), "", []string{"short.txt", "3 tokens", "64"}},
		{"text longer than the context", fits("evaluate", "--text", long), "", []string{"long.txt", "at most 512", "--max-tokens"}},
		{"nothing to score", fits("evaluate", "--text", long, "--max-tokens", "64"), "", []string{"--max-tokens 64"}},
		{"no prefill", fits("evaluate", "--text", long, "--prefill", "0"), "", []string{"--prefill 0"}},

		{"context of nobody", fits("memory", "--context", "513"), "", []string{"--context 513", "512"}},
		{"more rows than numbers go", fits("memory", "--batch", "9223372036854775807"), "", []string{"--batch 9223372036854775807, want at most"}},
		{"sinks beyond memory", fits("memory", "--cache-backend", "blocks", "--sinks", "99999999999"), "", []string{"--sinks: want at most"}},
		{"no rows", fits("memory", "--batch", "0"), "", []string{"--batch 0"}},
		{"size", fits("memory", "--max-memory", "much"), "", []string{`"much"`, "16GiB"}},
		{"measuring without a device", fits("memory", "--measure", "--backend", "tpu"), "", []string{`"tpu"`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, args := range [][]string{c.args, append(append([]string{}, c.args...), "--json")} {
				status, out, errs := runKVQ(t, c.in, args...)
				if status != exitBadInput {
					t.Errorf("kvq %q: status %d, want %d; %s", args, status, exitBadInput, errs)
				}
				if out != "" {
					t.Errorf("kvq %q printed %q on standard output, want nothing", args, out)
				}
				if !strings.HasPrefix(errs, "kvq: ") || strings.Count(errs, "\n") != 1 || !strings.HasSuffix(errs, "\n") {
					t.Errorf("kvq %q: want one line that begins with %q, got %q", args, "kvq: ", errs)
				}
				for _, part := range c.want {
					if !strings.Contains(errs, part) {
						t.Errorf("kvq %q: want %q in the error, got %q", args, part, errs)
					}
				}
			}
		})
	}
}
