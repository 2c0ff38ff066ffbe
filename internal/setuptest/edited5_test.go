package setuptest

import (
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// The notebook on quality with another text, other lengths, another prompt, other caches of the
// process, and results that were not made again.
func TestFifthNotebookEdited(t *testing.T) {
	load := "%%\nrungs := nb.Load[[]nb.Rung](\"rungs\", made)\nfmt.Println(\"loaded\", len(rungs))"
	part := "%%\nconst m = 12\n" +
		"for _, cache := range []string{\"full\", \"tutorial\"} {\n" +
		"\tfmt.Printf(\"tokens of %s:\", cache)\n" +
		"\tfor _, t := range ask.Quietly(ask.Request{Cache: cache, Prompt: prompt, MaxTokens: m, Others: 1}).Tokens {\n\t\tfmt.Printf(\" %q\", t.Text)\n\t}\n\tfmt.Println()\n}"
	cells := edited(t, "05-does-it-still-speak-well.ipynb", []edit{
		{"var text = texts.Story", "var text = strings.Repeat(\"The cat sat on the mat, and the dog ran to the old red door. \", 20)"},
		{"const prefill = 128", "const prefill = 64"},
		{"const scored = 40", "const scored = 10"},
		{"const written = 24", "const written = 5"},
		{"var widths = []int{2, 3, 4, 5}", "var widths = []int{2, 8}"},
		{"I am going to subscribe to this channel because", "My favourite food in winter is"},
		{"const n = 60", "const n = 12"},
		{"MaxTokens: 60", "MaxTokens: 7"},
		{`"full,tutorial,lowest"`, `"tutorial,full"`},
	}, []string{"exercise.", "cache := range", "nb.Find", "evaluate.Cheapest"},
		part,
		"%%\nask.Start(\"--preset\", \"tutorial,full\", \"--rows\", \"1\", \"--context\", \"2048\")",
		load, "const scored = 11", load)

	// one scored token a point, and scores of a text that is easy by now
	scores := output(t, cells, "PerplexityRatio")[0]
	numbers := regexp.MustCompile(`perplexity ([\d.]+), in full precision ([\d.]+)`).FindStringSubmatch(scores)
	if numbers == nil {
		t.Fatalf("scores: %q", scores)
	}
	if p, _ := strconv.ParseFloat(numbers[2], 64); p < 1 || p > 3 {
		t.Errorf("a text that repeats itself has a perplexity of %v", p)
	}
	// two widths, whose expected fall is that of six bits more: (255/3)²
	rungs := output(t, cells, "nb.RungTable")[0]
	if strings.Count(rungs, "\n") != 4 || !strings.Contains(rungs, "| 8 |") || !strings.Contains(rungs, "| 7225.0 |") {
		t.Errorf("rungs: %s", rungs)
	}
	// the picture's words have both widths
	if got := output(t, cells, "nb.Ladder")[0]; !strings.Contains(got, "2 bits: ") || !strings.Contains(got, "8 bits: ") {
		t.Errorf("the picture of all widths: %q", got)
	}
	// where the two part, against the tokens themselves
	said := numbersIn(output(t, cells, "median margin")[0], `the first (\d+) of (\d+) new tokens are the same`)
	var tokens [2][]string
	for i, name := range []string{"full", "tutorial"} {
		_, list, _ := strings.Cut(output(t, cells, "tokens of %s")[0], "tokens of "+name+": ")
		list, _, _ = strings.Cut(list, "\n")
		tokens[i] = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`).FindAllString(list, -1)
	}
	same := 0
	for same < 12 && tokens[0][same] == tokens[1][same] {
		same++
	}
	if len(said) != 1 || said[0][0] != same || said[0][1] != 12 {
		t.Errorf("said %v, wanted %d of 12", said, same)
	}
	for _, text := range output(t, cells, "ask.Show(ask.Request{Cache: ") {
		if !strings.HasPrefix(text, "My favourite food in winter is") {
			t.Errorf("a text that was asked for: %q", text)
		}
	}
	// the process is not started twice
	if got := output(t, cells, "ask.Start"); !strings.Contains(got[0], "it answers after") || got[1] != "kvq serve is there already\n" {
		t.Errorf("started: %q", got)
	}
	loads := output(t, cells, `fmt.Println("loaded"`)
	if loads[0] != "loaded 2\n" || !strings.HasPrefix(loads[1], "out of date: \"rungs\" was made with Scored 10, and now it is 11.") {
		t.Errorf("loads: %q", loads)
	}
}
