package setuptest

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/kvqbook/kvqbook/internal/randomllama"
	"github.com/kvqbook/kvqbook/internal/testlane"
	"github.com/kvqbook/kvqbook/notebooks/solutions"
)

// What a reader may change, a notebook has to stay right for: other prompts, lengths and settings,
// and cells run in another order.

// edit is one change of a reader: a text in the cells, which must be there, and what replaces it.
type edit struct{ from, to string }

// edited executes a copy of a committed notebook in which a reader has changed something: edits,
// and at the end further cells. Cells with a text of without are left out; they take long. It
// returns what each cell showed.
func edited(t *testing.T, name string, edits []edit, without []string, more ...string) []shown {
	t.Helper()
	testlane.OnlyAll(t, "executes a notebook")
	data, err := os.ReadFile(filepath.Join(root(t), "notebooks", name))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Cells []struct {
			Kind   string          `json:"cell_type"`
			Source json.RawMessage `json:"source"`
			Meta   struct {
				Tags   []string `json:"tags"`
				Expect string   `json:"expect_error"`
			} `json:"metadata"`
		}
	}
	if err := json.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	used := make([]bool, len(edits))
	var cells []cell
	for _, c := range file.Cells {
		source := joined(t, c.Source)
		if c.Kind != "code" || anyIn(source, without) {
			continue
		}
		for i, e := range edits {
			if strings.Contains(source, e.from) {
				source, used[i] = strings.ReplaceAll(source, e.from, e.to), true
			}
		}
		one := cell{source: source}
		if c.Meta.Expect != "" {
			one.meta = allowError(c.Meta.Expect)
		}
		cells = append(cells, one)
	}
	for i, e := range edits {
		if !used[i] {
			t.Fatalf("%s: no cell has %q", name, e.from)
		}
	}
	for _, source := range more {
		cells = append(cells, cell{source: source})
	}
	dir := t.TempDir()
	path := notebook(t, dir, "edited", "gonb", cells...)
	if _, stderr, status := call(t, runner(t, "--out", filepath.Join(dir, "out"), path)); status != 0 {
		t.Fatal(stderr)
	}
	if data, err = os.ReadFile(filepath.Join(dir, "out", "edited.ipynb")); err != nil {
		t.Fatal(err)
	}
	return shownBy(t, data)
}

func anyIn(text string, parts []string) bool {
	for _, part := range parts {
		if strings.Contains(text, part) {
			return true
		}
	}
	return false
}

// shown is a cell and what it showed.
type shown struct{ source, output string }

func shownBy(t *testing.T, notebook []byte) (cells []shown) {
	t.Helper()
	var file struct {
		Cells []struct {
			Source  json.RawMessage `json:"source"`
			Outputs []struct {
				Text json.RawMessage            `json:"text"`
				Data map[string]json.RawMessage `json:"data"`
			} `json:"outputs"`
		}
	}
	if err := json.Unmarshal(notebook, &file); err != nil {
		t.Fatal(err)
	}
	for _, c := range file.Cells {
		one := shown{source: joined(t, c.Source)}
		for _, out := range c.Outputs {
			one.output += joined(t, out.Text)
			for mime, data := range out.Data {
				if strings.HasPrefix(mime, "text/") {
					one.output += joined(t, data)
				}
			}
		}
		cells = append(cells, one)
	}
	return cells
}

// joined is a text of a notebook, which may be a list of lines.
func joined(t *testing.T, raw json.RawMessage) string {
	t.Helper()
	if raw == nil {
		return ""
	}
	var one string
	if json.Unmarshal(raw, &one) == nil {
		return one
	}
	var lines []string
	if err := json.Unmarshal(raw, &lines); err != nil {
		t.Fatal(err)
	}
	return strings.Join(lines, "")
}

// output is what the cells with a text in their source showed, the last of them last.
func output(t *testing.T, cells []shown, source string) (outputs []string) {
	t.Helper()
	for _, c := range cells {
		if strings.Contains(c.source, source) {
			outputs = append(outputs, c.output)
		}
	}
	if len(outputs) == 0 {
		t.Fatalf("no cell has %q", source)
	}
	return outputs
}

// numbersIn are the whole numbers that a pattern finds, a row a match.
func numbersIn(text, pattern string) (rows [][]int) {
	for _, match := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
		var row []int
		for _, group := range match[1:] {
			n, _ := strconv.Atoi(group)
			row = append(row, n)
		}
		rows = append(rows, row)
	}
	return rows
}

// The notebook on quantization with other prompts, lengths and another cache, one of its two
// generations run again alone, and then the other.
func TestFirstNotebookEdited(t *testing.T) {
	const residual, tokens, longTokens = 8, 30, 45
	compare := "%%\nnow := made(newTokens)\ncompare(nb.Load[Run](\"quantized\", now), nb.Load[Run](\"full\", now))"
	ids := `%%
now := made(newTokens)
for _, name := range []string{"quantized", "full"} {
	run := nb.Load[Run](name, now)
	text, _ := json.Marshal(run.Texts.New)
	fmt.Printf("%s ids: %s\n", name, text)
}`
	cells := edited(t, "01-kv-cache-quantization.ipynb", []edit{
		{`"Hello, how are you?"`, `"The capital of France is"`},
		{`"I am going to subscribe to this channel because"`, `"My favourite food in winter is"`},
		{"const newTokens = 20", fmt.Sprint("const newTokens = ", tokens)},
		{"const longTokens = 140", fmt.Sprint("const longTokens = ", longTokens)},
		{`generate("quantized", kvq.Tutorial(), newTokens)`, `generate("quantized", edited(), newTokens)`},
		{`generate("quantized, long", kvq.Tutorial(), longTokens)`, `generate("quantized, long", edited(), longTokens)`},

		{"const newTokens = ", fmt.Sprintf("func edited() kvq.Config {\n\tc := kvq.Tutorial()\n\tc.NBits, c.QGroupSize, c.ResidualLength = 2, 64, %d\n\treturn c\n}\n\nconst newTokens = ", residual)},
	}, []string{"nb.Reuse", "nb.Groups", "exercise.B", "exercise.Th", "exercise.To"},
		ids,
		`var prompts = []string{"Once upon a time", "The three primary colours are"}`, // the same name: it replaces the cell's
		compare,
		"%%\ngenerate(\"quantized\", edited(), newTokens)",
		compare,
		"%%\ngenerate(\"full\", kvq.Config{}, newTokens)",
		compare, ids)

	// what the comparisons say against the ids themselves
	texts := output(t, cells, "json.Marshal(run.Texts.New)")
	compared := output(t, cells, "compare(nb.Load[Run](\"quantized\", now)")
	if len(compared) != 4 || len(texts) != 2 {
		t.Fatalf("%d comparisons and %d lists of ids", len(compared), len(texts))
	}
	for i, comparison := range []string{compared[0], compared[3]} {
		var runs [2][][]int
		for j, name := range []string{"quantized", "full"} {
			_, list, _ := strings.Cut(texts[i], name+" ids: ")
			list, _, _ = strings.Cut(list, "\n")
			if err := json.Unmarshal([]byte(list), &runs[j]); err != nil {
				t.Fatalf("%v in %q", err, texts[i])
			}
		}
		said := numbersIn(comparison, `row (\d+): the first (\d+) of (\d+) new`)
		if len(said) != 2 {
			t.Fatalf("comparison %d says %q", i, comparison)
		}
		for row := range said {
			same := 0
			for same < tokens && runs[0][row][same] == runs[1][row][same] {
				same++
			}
			if want := []int{row, same, tokens}; fmt.Sprint(said[row]) != fmt.Sprint(want) {
				t.Errorf("comparison %d says %v, wanted %v", i, said[row], want)
			}
			if marks := strings.Count(comparison, "▶"); (marks == 0) != (same == tokens && fmt.Sprint(runs[0]) == fmt.Sprint(runs[1])) {
				t.Errorf("comparison %d has %d marks", i, marks)
			}
		}
	}
	// what is out of date is named, in one line, and nothing is compared
	for i, name := range map[int]string{1: "quantized", 2: "full"} {
		want := fmt.Sprintf(`out of date: "%s" was made with Prompts ["The capital of France is","My favourite food in winter is"], and now it is ["Once upon a time","The three primary colours are"]`, name)
		if !strings.HasPrefix(compared[i], want) || strings.Count(compared[i], "\n") != 1 {
			t.Errorf("comparison %d says %q, wanted %q", i, compared[i], want)
		}
	}
	// bytes and tokens in codes follow the settings
	bytes := output(t, cells, "ratio(fmt.Sprint")[0]
	if ratios := strings.Count(bytes, "| 1.000 |"); ratios != 6 || !strings.Contains(bytes, "codes of 2 bits") {
		t.Errorf("the table of bytes: %s", bytes)
	}
	coded := numbersIn(output(t, cells, "run.Result.CodedTokens[i]")[0], `row \d+: (\d+) tokens in codes, the prompt has (\d+)`)
	life := numbersIn(output(t, cells, "run.Result.CodedTokens[i]")[0], `in codes: (\d+) tokens \(the prompt has (\d+)\), in full precision: (\d+), flushes of the window: (\d+)`)
	if len(coded) != 2 || len(life) != 1 {
		t.Fatalf("tokens in codes: %v %v", coded, life)
	}
	longest := 0
	for _, row := range coded {
		if want := solutions.TokensInCodes(row[1], tokens-1, residual); row[0] != want {
			t.Errorf("%v tokens in codes after a prompt of %d, wanted %d", row[0], row[1], want)
		}
		longest = max(longest, row[1])
	}
	in := solutions.TokensInCodes(longest, tokens-1, residual)
	if want := []int{in, longest, longest + tokens - 1 - in, (in - longest) / residual}; fmt.Sprint(life[0]) != fmt.Sprint(want) {
		t.Errorf("a cache's life says %v, wanted %v", life[0], want)
	}
	flushes := numbersIn(output(t, cells, "nb.Strips(")[0], `before new token (\d+) was added, the window was flushed: (\d+) tokens in codes`)
	if len(flushes) != (longTokens-2)/residual {
		t.Errorf("%d flushes: %v", len(flushes), flushes)
	}
	for i, f := range flushes {
		if want := []int{residual*(i+1) + 1, longest + residual*(i+1)}; fmt.Sprint(f) != fmt.Sprint(want) {
			t.Errorf("flush %d says %v, wanted %v", i, f, want)
		}
	}
}

// The notebook on why there is a cache, with another text, other lengths, and a generation that was
// not run again.
func TestSecondNotebookEdited(t *testing.T) {
	const tokens = 10
	compare := "%%\nmade := Made{prompt, newTokens}\n_, _ = nb.Load[Run](\"with\", made), nb.Load[Run](\"without\", made)\nfmt.Println(\"compared\")"
	cells := edited(t, "02-why-a-cache.ipynb", []edit{
		{`const prompt = "Once upon a time"`, `const prompt = "The capital of France is Paris, and"`},
		{"const newTokens = 24", fmt.Sprint("const newTokens = ", tokens)},
		{"[]int{64, 128, 256, 512}\n", "[]int{32, 64}\n"},
		{`{1, 0}, {0, 2}, {1, 1}, {0.5, -1}, {1, 0}, {0, 1.5}}`, `{1, 0.5}, {0, 2}, {-1, 1}, {0.5, -1}, {1, 0}, {2, 1.5}}`},
	}, []string{"nb.StepTime", "exercise."}, compare, `const prompt = "Another text"`, compare, "const newTokens = 12", compare)

	same := output(t, cells, "tokens\\n\", same, newTokens")[0]
	if want := fmt.Sprintf("the same %d of %d tokens", tokens, tokens); !strings.Contains(same, want) {
		t.Errorf("the texts: %q, want %q", same, want)
	}
	// each text begins with the prompt
	for _, text := range output(t, cells, "live.Texts(tok, batch)") {
		if !strings.Contains(text, "The capital of France is Paris, and<b>") {
			t.Errorf("a text shown: %q", text)
		}
	}
	if got := output(t, cells, "withoutCache()\nfmt.Printf(")[0]; !strings.Contains(got, "6 keys were computed, results equal: true") {
		t.Errorf("other vectors: %q", got)
	}
	if got := output(t, cells, "largest difference")[0]; !strings.Contains(got, "0.0000") {
		t.Errorf("other vectors in the library: %q", got)
	}
	if rows := numbersIn(output(t, cells, "ratio of the multiply-adds")[0], `\| (\d+) \| \d+ \| \d+ \| \d+ \| (\d+) \|`); fmt.Sprint(rows) != "[[32 25] [64 50]]" {
		t.Errorf("other lengths: %v", rows)
	}
	loads := output(t, cells, `fmt.Println("compared")`)
	for i, want := range []string{"compared\n", `out of date: "with" was made with Prompt "The capital of France is Paris, and", and now it is "Another text"`,
		`out of date: "with" was made with Prompt "The capital of France is Paris, and", and now it is "Another text"`} {
		if !strings.HasPrefix(loads[i], want) || strings.Count(loads[i], "\n") != 1 {
			t.Errorf("after edit %d: %q, want %q", i, loads[i], want)
		}
	}
}

// The notebook on quantizing with another layer, fewer tokens and other numbers, and a layer that
// was not read again.
func TestThirdNotebookEdited(t *testing.T) {
	load := "%%\nkept := nb.Load[nb.Layer](\"kept\", Read{layer, readTokens})\nfmt.Println(\"loaded\", len(kept.Keys[0]))"
	cells := edited(t, "03-quantizing.ipynb", []edit{
		{"const layer = 19", "const layer = 10"},
		{"const readTokens = 128", "const readTokens = 64"},
		{"[]float64{-1.7, -0.4, 0.0, 0.3, 0.9, 1.1, 2.2, 4.3}", "[]float64{3, 3, 3}"},
		{"codes := []int{1, 2, 3, 4, 5, 6, 7, 8}", "codes := []int{15, 0, 9, 4, 5, 6, 7, 8}"},
	}, []string{"exercise.", "nb.NumberLine"}, load, "const layer = 11", load)

	if got := output(t, cells, "largest error %.2f")[0]; !strings.Contains(got, "3.00 -> code  0 ->  3.00   error  0.00") {
		t.Errorf("a group of equal numbers: %q", got)
	}
	if got := output(t, cells, "word %#x")[0]; !strings.Contains(got, "word 0x8765490f") {
		t.Errorf("other codes: %q", got)
	}
	if got := output(t, cells, "heads of %d tokens")[0]; !strings.Contains(got, "3 heads of 64 tokens by 64 channels") {
		t.Errorf("fewer tokens: %q", got)
	}
	if got := output(t, cells, "codes that differ")[0]; !strings.Contains(got, "codes that differ: 0 of 4096") {
		t.Errorf("another layer: %q", got)
	}
	word := regexp.MustCompile(`(0x[0-9a-f]+) by hand, (0x[0-9a-f]+) in the cache`).FindStringSubmatch(output(t, cells, "codes that differ")[0])
	if word == nil || word[1] != word[2] {
		t.Errorf("words: %q", word)
	}
	if got := output(t, cells, "sinks 4")[0]; !strings.Contains(got, "32 of 64 tokens are") {
		t.Errorf("sinks: %q", got)
	}
	loads := output(t, cells, `fmt.Println("loaded"`)
	if loads[0] != "loaded 64\n" || loads[1] != "out of date: \"kept\" was made with Layer 10, and now it is 11. Run the cell that makes it again.\n" {
		t.Errorf("loads: %q", loads)
	}
}

// The notebook on the cache in the graph with another prompt, other lengths and another cache.
func TestFourthNotebookEdited(t *testing.T) {
	const prompt, steps, tokens, sinks, residual = 130, 40, 90, 3, 8
	cells := edited(t, "04-the-cache-in-the-graph.ipynb", []edit{
		{"const prompt, steps = 100, 160", fmt.Sprintf("const prompt, steps = %d, %d", prompt, steps)},
		{`const story, newTokens = "Once upon a time", 60`, fmt.Sprintf(`const story, newTokens = "My favourite food in winter is", %d`, tokens)},
		{"const tokens = 16384", "const tokens = 2048"},
		{"const short, long = 200, 328", "const short, long = 150, 151"},
	}, []string{"exercise.", "fit.Request", "nb.Append("}, // these take long and have no settings
		fmt.Sprintf(`%%%%
backend := nb.Must(device.Open(""))
for _, m := range []nb.Moment{nb.Life(backend, blocks(%d, %d), prompt, steps)[steps]} {
	fmt.Printf("at the end %%d in codes, %%d exact\n", m.Coded, m.Exact)
}`, sinks, residual))
	life := output(t, cells, "nb.Timeline(")[0]
	if want := fmt.Sprintf("blocks: after the prompt %d of %d tokens are exact", prompt-solutions.InBlocks(prompt, 0, 4, 64), prompt); !strings.Contains(life, want) {
		t.Errorf("a cache's life: %q, want %q", life, want)
	}
	end := solutions.InBlocks(prompt, steps, sinks, residual)
	if got, want := output(t, cells, "at the end %d in codes")[0], fmt.Sprintf("at the end %d in codes, %d exact", end, prompt+steps-end); !strings.Contains(got, want) {
		t.Errorf("another cache: %q, want %q", got, want)
	}
	if got := output(t, cells, "XLA's temporary memory")[0]; !strings.Contains(got, "| tiles |") {
		t.Errorf("a shorter cache: %q", got)
	}
	if got := output(t, cells, "codes that differ")[0]; !strings.Contains(got, "64 and 64 tokens in codes; codes that differ: 0 of 4096") {
		t.Errorf("prompts that differ in a token: %q", got)
	}
	text := output(t, cells, "nb.Places(")[0]
	places := numbersIn(text, `(?s)sink: (\d+) tokens.*codes: (\d+) tokens.*window: (\d+) tokens`)
	if len(places) != 1 || !strings.Contains(text, "My favourite food in winter is<b>") {
		t.Fatalf("places: %q", text)
	}
	held := places[0][0] + places[0][1] + places[0][2]
	if coded := solutions.InBlocks(held-(tokens-1), tokens-1, 2, 16); places[0][0] != 2 || places[0][1] != coded {
		t.Errorf("places of %d tokens: %v, wanted 2 sinks and %d in codes", held, places, coded)
	}
}

// The notebook on Llama-2-7B with a model that this machine can run: Llama-2's own layout, small,
// with random weights and Llama-2's vocabulary.
func TestSeventhNotebookEdited(t *testing.T) {
	testlane.OnlyAll(t, "executes a notebook")
	const tokens = 70
	model := t.TempDir()
	shape, err := randomllama.Llama2(32)
	if err == nil {
		err = randomllama.Write(model, shape, 3, 1)
	}
	if err == nil {
		err = randomllama.Tokenizer(model, filepath.Join(root(t), "tokenizer", "testdata", "llama2-tokenizer.json.gz"))
	}
	if err != nil {
		t.Fatal(err)
	}
	compare := "%%\nnb.Load[Run](\"llama2, full\", made())\nfmt.Println(\"loaded\")"
	cells := edited(t, "07-llama-2-7b-on-a-gpu.ipynb", []edit{
		{`const modelName = "meta-llama/Llama-2-7b-chat-hf"`, fmt.Sprintf("const modelName = %q", model)},
		{"const precision = dtypes.Float16", "const precision = dtypes.Float32"},
		{"const newTokens = 20", fmt.Sprint("const newTokens = ", tokens)},
		{`"Hello, how are you?"`, `"The capital of France is a city, and"`},
		{"[]int{512, 2048, 4000}", "[]int{64, 128}"},
	}, []string{"exercise.", "nb.Committed("}, compare, "const newTokens = 12", compare)

	for _, cell := range cells {
		if strings.Contains(cell.output, "not run here") {
			t.Errorf("a model that is there was not run: %q", cell.output)
		}
	}
	if got := output(t, cells, "nb.Model(modelName)")[0]; !strings.Contains(got, "billion parameters") {
		t.Errorf("the files: %q", got)
	}
	for _, run := range []string{`generate("llama2, quantized"`, `generate("llama2, full"`} {
		if got := output(t, cells, run)[0]; !strings.Contains(got, "The capital of France is a city, and<b>") {
			t.Errorf("%s shows %q", run, got)
		}
	}
	compared := output(t, cells, "nb.Beside(")[0]
	rows := numbersIn(compared, `row (\d+): the first (\d+) of (\d+) new tokens are the same, (\d+) tokens in codes`)
	if len(rows) != 2 {
		t.Fatalf("compared: %q", compared)
	}
	for i, row := range rows {
		// 69 tokens were fed: the window of 64 was flushed once, and the prompt is in codes
		if row[0] != i || row[1] > tokens || row[2] != tokens || row[3] <= 64 || row[3] > 64+20 {
			t.Errorf("row %v", row)
		}
	}
	if got := output(t, cells, "stepTimes(live, cache)")[0]; !strings.Contains(got, "| ms a token | 64 tokens | 128 tokens |") || strings.Count(got, "\n|") != 3 {
		t.Errorf("times: %q", got)
	}
	loads := output(t, cells, `fmt.Println("loaded")`)
	if loads[0] != "loaded\n" || !strings.HasPrefix(loads[1], `out of date: "llama2, full" was made with NewTokens 70, and now it is 12`) {
		t.Errorf("loads: %q", loads)
	}
}
