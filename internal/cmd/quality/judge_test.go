package main

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/kvqbook/kvqbook/internal/judge/task"
	"github.com/kvqbook/kvqbook/internal/passkey"
	"github.com/kvqbook/kvqbook/internal/smallmodel"
	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama/evaluate"
)

// Every preset, the tutorial's cache and full precision have a row in each part, and rows are
// chosen by their names.
func TestJudgeJobs(t *testing.T) {
	list := judgeJobs(fullSizes)
	if want := 5 * (2 + len(kvq.Presets())); len(list) != want {
		t.Errorf("%d rows, want %d", len(list), want)
	}
	names := map[string]bool{}
	for _, j := range list {
		names[j.name()] = true
	}
	for _, c := range append(kvq.Presets(), "full precision", tutorialName) {
		for _, part := range []string{"position", "free", "asked 1000", "asked 4000", "asked 7900"} {
			if !names[part+" "+c] {
				t.Errorf("no row %q", part+" "+c)
			}
		}
	}
	if some, err := choose(list, "asked * lowest,free*"); err != nil || len(some) != 3+2+len(kvq.Presets()) {
		t.Errorf("chose %d rows: %v", len(some), err)
	}
	if _, err := choose(list, "passkey 1024 lowest"); !usererr.Is(err) {
		t.Errorf("a row of another document was chosen: %v", err)
	}
}

// By hand, two texts of four and three scores from position 2 on, bins 2-4 and 4-6.
func TestBinsByHand(t *testing.T) {
	yes, no := true, false
	rows := []evaluate.Scores{
		{NLL: []float32{1, 3, 5, 7}, KL: []float32{0.25, 0.75, 2, 4}, Top1: []bool{yes, no, yes, yes}},
		{NLL: []float32{2, 2, 9}, KL: []float32{0.5, 1.5, 6}, Top1: []bool{yes, yes, no}},
	}
	full := []evaluate.Scores{{NLL: []float32{1, 1, 1, 1}}, {NLL: []float32{2, 4, 4}}}
	got := bins(rows, full, []int{2, 4, 6})
	// Stretches of 64 are longer than a text: one mean a text. Bin 1: 0.5 and 1, the mean of the
	// four values 0.75, error √((0.25² + 0.25²) / 1 / 2) = 0.25. Bin 2: 3 and 6, error 1.5.
	want := []binScore{{2, 4, 4, 0.75, 0.25, 2, 2, 0.75}, {4, 6, 3, 4, 1.5, 7, 2, 2.0 / 3}}
	if len(got) != 2 {
		t.Fatalf("%d bins", len(got))
	}
	for i := range want {
		if math.Abs(got[i].Same-want[i].Same) > 1e-12 {
			t.Errorf("bin %d: top-1 %g, want %g", i, got[i].Same, want[i].Same)
		}
		if got[i].Same = want[i].Same; got[i] != want[i] {
			t.Errorf("bin %d: %+v, want %+v", i, got[i], want[i])
		}
	}
	// Full precision does not differ from itself, and a bin beyond all texts is none.
	if own := bins(full, full, []int{2, 4, 6, 8}); len(own) != 2 || own[0].KL != 0 || own[0].Same != 1 || own[0].NLL != 2 {
		t.Errorf("full precision itself: %+v", own)
	}
}

// By hand: a text that parts at its third token, one that never does.
func TestWrittenByHand(t *testing.T) {
	j := &judgement{sizes: sizes{seeds: 2}}
	full := &writing{texts: [][]int32{{1, 2, 3, 4}, {5, 5, 5, 5, 5}}, prompts: []int{0, 7}, greedy: 1,
		scores: []evaluate.Scores{{NLL: []float32{1, 1, 2, 4}}, {NLL: []float32{1, 1, 1, 1, 1}}}}
	own := &writing{texts: [][]int32{{1, 2, 9, 4}, {5, 5, 5, 5, 5}}, prompts: full.prompts, greedy: 1}
	got := compareWritten(j, own, full, []evaluate.Scores{{NLL: []float32{1, 1, 6, 8}}, {NLL: []float32{1, 1, 1, 1, 1}}},
		[]evaluate.Scores{{KL: []float32{0.5, 1.5, 100, 3}}, {KL: []float32{1, 1, 1, 1, 2}}})
	want := []writtenText{
		{Prompt: 0, Tokens: 4, Parted: 2, NLL: 4, NLLAfter: 7, FullAfter: 3, KLBefore: 1, KLAfter: 3},
		{Prompt: 7, Sampled: true, Tokens: 5, Parted: 5, Repeated: 0.5, Longest: 4, NLL: 1, KLBefore: 1.2},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	itself := compareWritten(j, full, full, full.scores, nil)
	if itself[0] != (writtenText{Tokens: 4, Parted: 4, NLL: 2}) {
		t.Errorf("full precision itself: %+v", itself[0])
	}
	if got := (&judgement{sizes: sizes{seeds: 2}, prompts: make([][]int32, 4)}).draft(); !slices.Equal(got, []int{0, 0, 1, 1}) {
		t.Errorf("prompts of the sampled texts: %v", got)
	}
}

// made is a store with made-up rows of every cache in every part.
func made(t *testing.T, path string) *store {
	t.Helper()
	s, err := openStore(path)
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range keyCaches() {
		config, err := c.config.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range []*judged{
			{Part: partPosition, Bins: []binScore{{64, 512, 1792, 0.001 * float64(i), 0.0001 * float64(i), 2, 2, 0.9}, {512, 1024, 2048, 0.002 * float64(i), 0.0001, 1.5, 1.5, 0.8}}},
			{Part: partFree, Texts: []writtenText{{Tokens: 10, Parted: 10 - i, Repeated: 0.25, Longest: 3, NLL: 1, NLLAfter: 2, FullAfter: 1, KLBefore: 0.5, KLAfter: 0.75},
				{Prompt: 1, Tokens: 10, Parted: 10 - i, Repeated: 0.75, Longest: 5, NLL: 1, NLLAfter: 2, FullAfter: 1, KLBefore: 0.5, KLAfter: 0.75},
				{Sampled: true, Tokens: 10, Parted: 10, NLL: 3}}},
			{Part: partAsked, Asked: []askedScore{{task.Keys, 1000, strings.Repeat("1", 10-i) + strings.Repeat("0", i)}, {task.Sums, 1000, "00000000001"}}},
		} {
			if err := s.add(result{key: key{string(config), part.Part, "model.gguf", "device", "v1"}, Name: job{step: c, part: part.Part, length: part.length()}.name(),
				Date: "2026-01-02", Bits: 16, Judged: part}); err != nil {
				t.Fatal(err)
			}
		}
	}
	return s
}

// The document of made-up rows has their figures, each with its error, the intervals of Wilson, the
// task that full precision fails left out by name, and a picture with a line for every cache.
func TestJudgedDocument(t *testing.T) {
	dir := t.TempDir()
	s := made(t, filepath.Join(dir, "judged.jsonl"))
	// A text that parts at its last token has no divergence after it.
	last := len(s.list) - 2
	s.list[last].Judged.Texts[0].Parted, s.list[last].Judged.Texts[0].KLAfter = 9, 100
	// An older run, and rows over other texts, stand in no table.
	old := s.list[1]
	old.Version = "v0"
	s.list = append([]result{old}, s.list...)
	out := filepath.Join(dir, "judged.md")
	if err := s.newestJudged().write(out); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	for _, want := range []string{
		"device,\ncode version v1",
		"| tutorial | 16.000 | 0.00100 ± 0.00010 | 0.00200 ± 0.00010 |",
		"| full precision | 16.000 | (7.389) | (4.482) |",
		"![KL divergence by position](judged.svg)",
		"| smallest | 50.0 ± 25.0 % | 0.0 ± 0.0 | 4 ± 1 | 2.718 ± 0.000 | 1.000 ± 0.000 | 8 ± 0 (median 8) | 0 of 2 | 0.50000 ± 0.00000 | 0.75000 ± 0.00000 | 7.389 ± 0.000 | 2.718 ± 0.000 |",
		"| lowest | 50.0 ± 25.0 % | 0.0 ± 0.0 | 4 ± 1 | 2.718 ± 0.000 | 1.000 ± 0.000 | 6 ± 2 (median 4) | 0 of 2 | 0.50000 ± 0.00000 | 0.75000 | 7.389 ± 0.000 | 2.718 ± 0.000 |",
		"| keys | 1000 | 10 of 10 (72 to 100 %) | 9 of 10 (60 to 98 %), -1 +0 |",
		"Left out, because full precision itself hardly ever finds the answer: sums at 1000 tokens (1 of 11).",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the document lacks %q:\n%s", want, text)
		}
	}
	if strings.Contains(text, "NaN") || strings.Contains(text, "Not measured") || strings.Contains(text, "%!") {
		t.Errorf("the document says\n%s", text)
	}
	drawing, err := os.ReadFile(filepath.Join(dir, "judged.svg"))
	if err != nil {
		t.Fatal(err)
	}
	var words []string
	for _, m := range regexp.MustCompile(`(?s)<text[^>]*>([^<]*)</text>`).FindAllStringSubmatch(string(drawing), -1) {
		words = append(words, strings.TrimSpace(m[1]))
	}
	for _, word := range append(kvq.Presets(), tutorialName, "64", "512", "1024", "tokens before (log)") {
		if n := count(words, word); n != 1 {
			t.Errorf("the picture says %q %d times, want once", word, n)
		}
	}
}

// A gap is named, and rows of one part over other texts than its newest row are left out.
func TestJudgedRunIsOfOneKind(t *testing.T) {
	s := made(t, filepath.Join(t.TempDir(), "judged.jsonl"))
	last := s.list[len(s.list)-1] // asked, of the last cache
	last.Texts = "others"
	s.list[len(s.list)-1] = last
	g := s.newestJudged()
	if want := len(s.list) - len(keyCaches()) + 1; len(g.results) != want {
		t.Errorf("%d rows, want %d", len(g.results), want)
	}
	if text := string(g.document("")); !strings.Contains(text, "Not measured in this run: asked 1000 full precision, asked 1000 tutorial") {
		t.Errorf("gaps are not named:\n%s", text)
	}
}

// What is there is not measured again: a stored row is found after the program began anew, and not
// after its texts changed.
func TestJudgedRowsAreSkipped(t *testing.T) {
	path := filepath.Join(t.TempDir(), "judged.jsonl")
	s, err := openStore(path)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{store: s, base: key{Model: "m", Device: "d", Version: "v"}, judge: &judgement{sizes: quickSizes, long: [][]int32{{1, 2}}, prompts: [][]int32{{3}},
		trials: map[int]askedTexts{500: {1, []askedTrials{{task.Keys, []passkey.Trial{{Text: []int32{4}, Tail: []int32{5}}}}}}}}}
	jobs := judgeJobs(quickSizes)
	for _, j := range jobs[:len(jobs)-1] {
		k, err := b.key(j)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.add(result{key: k, Judged: &judged{Part: j.part}}); err != nil {
			t.Fatal(err)
		}
	}
	if b.store, err = openStore(path); err != nil {
		t.Fatal(err)
	}
	if left, err := b.missing(jobs); err != nil || len(left) != 1 || left[0].name() != jobs[len(jobs)-1].name() {
		t.Errorf("left to measure: %v, %v", left, err)
	}
	b.judge.long = [][]int32{{1, 3}}
	if left, err := b.missing(jobs); err != nil || len(left) != 1+len(keyCaches()) {
		t.Errorf("after the long texts changed, %d rows are left, want the last and those over positions (%v)", len(left), err)
	}
}

// Code, tables and pictures are left out, the rest stays as it is.
func TestProseByHand(t *testing.T) {
	got := prose("# Title\n\nOne `word`.\n\n    indented\n| a | b |\n```go\ncode\n| more |\n```\n![picture](x.svg)\n- two\n  lines\nlast")
	if want := "# Title\n\nOne `word`.\n\n- two\n  lines\nlast"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestLongTexts(t *testing.T) {
	for _, o := range []options{{judge: true, quick: true}, {judge: true, quick: true, results: "x"}} {
		if err := judge(context.Background(), o); !usererr.Is(err) || !strings.Contains(err.Error(), "--results and --out") {
			t.Errorf("%+v gave %v", o, err)
		}
	}
	_, tok := smallmodel.Open(t)
	var files []string
	for path := range strings.SplitSeq(longTexts, ",") {
		files = append(files, "../../../"+path)
	}
	s := fullSizes
	n := s.edges[len(s.edges)-1]
	list, err := readLong(tok, strings.Join(files, ","), s.texts, n)
	if err != nil || len(list) != s.texts || len(list[0]) != n || slices.Equal(list[0], list[1]) {
		t.Errorf("%d texts: %v", len(list), err)
	}
	if _, err := readLong(tok, files[0], 100, n); !usererr.Is(err) || !strings.Contains(err.Error(), fmt.Sprintf("want 100 texts of %d", n)) {
		t.Errorf("too short a file gave %v", err)
	}
	if _, err := readLong(tok, "nowhere.md", 1, n); !usererr.Is(err) {
		t.Errorf("no file gave %v", err)
	}
}
