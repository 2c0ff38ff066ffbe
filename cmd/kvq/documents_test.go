package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kvqbook/kvqbook/internal/asset"
	"github.com/kvqbook/kvqbook/internal/doctest"
	"github.com/kvqbook/kvqbook/internal/testlane"
)

// way is how a command line of the documents is tried: it is run, or a test runs it, or there is a
// reason why not.
type way struct {
	// args are those that make it run here: of a made-up model, of small sizes. They come after the
	// document's own, and the last of two flags counts. nil: it is not run.
	args []string
	test string
	not  string
}

// tiny are flags for the made-up model, whose heads have 8 elements.
var tiny = []string{"--model", "TINY", "--q-group-size", "8", "--backend", "xla:cpu"}

// small are flags for a benchmark of it.
func small(more ...string) way {
	return way{args: slices.Concat(tiny, []string{"--runs", "1", "--steps", "2"}, more)}
}

// with are other flags, maybe none.
func with(args ...string) way { return way{args: append([]string{}, args...)} }

// asPrinted is run as it stands, with the small model of the set-up, and prints what the document
// says.
var asPrinted = way{args: []string{}}

const (
	aGPU    = "wants a GPU; the same without it runs here"
	aRecipe = "is of a recipe, after a change of the code"
)

var ways = map[string]way{
	"kvq compare":                                            asPrinted,
	"kvq compare -p - -n 100":                                asPrinted,
	`kvq generate "Once upon a time" -n 40`:                  asPrinted,
	"kvq memory --context 4096 --measure=false | tail -n 12": asPrinted,

	"kvq chat":     {test: "TestChatFromAPipe"},
	"kvq devices":  {test: "TestDevices"},
	"kvq doctor":   {test: "TestDoctor"},
	"kvq version":  {test: "TestVersionAndHelp"},
	"kvq show":     with("--model", "TINY"),
	"kvq presets":  with("--model", "TINY"),
	"kvq generate": {args: slices.Concat(tiny, []string{"--prompt", tinyText(5, 6), "--max-new-tokens", "3"})},
	"kvq evaluate": {args: slices.Concat(tiny, []string{"--text", "FILE", "--prefill", "8"})},
	"kvq choose":   with("--model", "TINY", "--text", "FILE", "--prefill", "8", "--max-tokens", "40", "--backend", "xla:cpu"),
	"kvq generate -f long.txt --save-cache long.cache -n 0":          {test: "TestGenerateSaveAndLoadCache"},
	`kvq generate "What is it about?" --load-cache long.cache -n 60`: {test: "TestGenerateSaveAndLoadCache"},
	"kvq calibrate --text mine.txt":                                  with("--model", "TINY", "--backend", "xla:cpu"),
	"kvq evaluate --preset lowest --feedback-key calibrated":         {test: "TestCalibrate"},
	"kvq memory":  {args: slices.Concat(tiny, []string{"--measure=false"})},
	"kvq passkey": {test: "TestPasskey"},
	"kvq list":    with(),
	"kvq serve":   {test: "TestServe"},
	"kvq serve --listen 127.0.0.1:8080 --token-file token --rows 8": {test: "TestServe", not: "as it stands it serves until it is ended"},
	"kvq serve --preset balanced --rows 8 --context 8192":           {test: "TestServe", not: "as it stands it serves until it is ended"},
	"kvq serve --preset full,tutorial,balanced --idle 10m":          {test: "TestServe", not: "as it stands it serves until it is ended"},
	"kvq serve --listen 127.0.0.1:8080 --token-file token":          {test: "TestServe", not: "as it stands it serves until it is ended"},
	"kvq rm":          {test: "TestListAndRemove"},
	"kvq rm org/name": {test: "TestListAndRemove"},

	"kvq download":       {test: "TestDownload"},
	"kvq download MODEL": {test: "TestDownload"},
	"kvq login":          {test: "TestLoginCommands"},
	"kvq login < file":   {test: "TestLoginCommands"},
	"kvq logout":         {test: "TestLoginCommands"},
	"kvq whoami":         {test: "TestLoginCommands"},

	"kvq bench":           {not: "stands for what is below it"},
	"kvq bench attention": with("--shape", "2/1/32", "--tokens", "64", "--runs", "1", "--steps", "2", "--backend", "xla:cpu"),
	"kvq bench compile":   small(),
	"kvq bench decode":    small("--tokens", "64", "--batches", "1"),
	"kvq bench growth":    small("--tokens", "32,64"),
	"kvq bench memory":    small("--tokens", "64", "--batches", "1"),
	"kvq bench prefill":   small("--tokens", "64", "--steps", "1"),
	"kvq bench start":     {test: "TestBenchStart"},

	"kvq layerbits":          {not: "stands for the line with a text, below"},
	"kvq layerbits --bits N": {not: "stands for the line with a text, below"},
	"kvq layerbits --preset lowest --bits 2.8 --text mine.txt --max-tokens 320": with("--model", "TINY", "--bits", "5", "--prefill", "8", "--max-tokens", "90", "--backend", "xla:cpu"),

	"kvq presets --measure":                          with("--model", "TINY", "--context", "128", "--steps", "2", "--runs", "1", "--backend", "xla:cpu"),
	"kvq evaluate --text FILE":                       {args: slices.Concat(tiny, []string{"--prefill", "8"})},
	"kvq evaluate --text mine.txt --preset smallest": with("--model", "TINY", "--prefill", "8", "--backend", "xla:cpu"),
	`kvq generate -m M "TEXT"`:                       {args: slices.Concat(tiny, []string{"-n", "3"})},
	"kvq memory --context 2048 --measure":            {args: slices.Concat(tiny, []string{"--context", "128"})},
	"kvq memory --context 4096":                      {args: slices.Concat(tiny, []string{"--context", "128"})},
	"kvq memory --context N --batch B":               {args: slices.Concat(tiny, []string{"--context", "128", "--batch", "2"})},
	"kvq memory --devices N":                         {args: slices.Concat(tiny, []string{"--devices", "2", "--measure=false"})},
	"kvq memory --model M":                           {args: slices.Concat(tiny, []string{"--measure=false"})},

	"kvq compare --nbits 7":                                                   {not: aRecipe},
	"kvq compare --preset balanced --nbits 7":                                 {not: aRecipe},
	"kvq compare --preset balanced --range-key trimmed --range-value trimmed": {not: aRecipe},

	"kvq compare --model meta-llama/Llama-2-7b-chat-hf --backend xla:cuda":                                                                {test: "TestLlama2FromTheHub", not: aGPU},
	"kvq compare --model meta-llama/Llama-2-7b-chat-hf --backend xla:cuda --devices 2":                                                    {test: "TestGenerateOnTwoDevices", not: aGPU},
	"kvq memory --model meta-llama/Llama-2-7b-chat-hf --dtype float16 --devices 2 --max-memory 16GiB":                                     with("--model", "TINY", "--q-group-size", "8", "--backend", "xla:cpu"),
	"kvq memory --model meta-llama/Llama-2-7b-chat-hf --dtype float16 --max-memory 24GiB":                                                 with("--model", "TINY", "--q-group-size", "8", "--backend", "xla:cpu"),
	"kvq memory --model /tmp/random7b --backend xla:cuda --context 4096":                                                                  {test: "TestRandomLlama", not: aGPU},
	"kvq generate --model /tmp/random7b --backend xla:cuda --dtype float16 --max-new-tokens 256 --min-new-tokens 256 --json":              {test: "TestRandomLlama", not: aGPU},
	"kvq generate --model /tmp/random7b --backend xla:cuda --dtype float16 --max-new-tokens 256 --min-new-tokens 256 --json --cache full": {test: "TestRandomLlama", not: aGPU},
}

// documented returns the command lines of kvq in the documents.
func documented(t *testing.T) []doctest.Command {
	t.Helper()
	all, err := doctest.Commands("../..")
	if err != nil {
		t.Fatal(err)
	}
	list := slices.DeleteFunc(all, func(c doctest.Command) bool { return !strings.HasPrefix(c.Line, "kvq ") })
	if len(list) < 30 {
		t.Fatalf("%d command lines found, want many", len(list))
	}
	return list
}

// Every command line of the documents has a way, and every way a command line.
func TestDocumentsCommandsAreTried(t *testing.T) {
	tests, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	var code strings.Builder
	for _, file := range tests {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		code.Write(data)
	}
	shown := map[string]bool{}
	for _, c := range documented(t) {
		w, known := ways[c.Line]
		shown[c.Line] = true
		switch {
		case !known:
			t.Errorf("%s: %q is neither run by a test nor has a reason why not: give it a way", c.Place, c.Line)
		case w.args == nil && w.test == "" && w.not == "":
			t.Errorf("%q: its way says nothing", c.Line)
		case w.test != "" && !strings.Contains(code.String(), "func "+w.test+"("):
			t.Errorf("%q is said to be tried by %s, which is not there", c.Line, w.test)
		}
	}
	for line := range ways {
		if !shown[line] {
			t.Errorf("no document has %q any more: take its way out", line)
		}
	}
}

// replaced are args with what stands for the words of a document that its reader replaces.
func replaced(args []string, model, text string) []string {
	stand := map[string]string{"TINY": model, "M": model, "FILE": text, "mine.txt": text, "TEXT": tinyText(5, 6), "N": "2", "B": "1"}
	list := slices.Clone(args)
	for i, a := range list {
		if s := stand[a]; s != "" {
			list[i] = s
		}
	}
	return list
}

// Commands, flags and the kinds of their values are those of the documents.
func TestDocumentsParse(t *testing.T) {
	for _, c := range documented(t) {
		root, _ := newRoot()
		args := replaced(c.Words()[1:], "model", "text")
		sub, rest, err := root.Find(args)
		if err == nil && sub == root {
			err = os.ErrNotExist
		}
		if err == nil {
			err = sub.ParseFlags(rest)
		}
		// In prose a name alone stands for the command, not for a call.
		if err == nil && len(rest) > 0 {
			err = sub.ValidateArgs(sub.Flags().Args())
		}
		if err != nil {
			t.Errorf("%s: %q: %v", c.Place, c.Line, err)
		}
	}
}

// The flags that docs/coming-from.md sets beside those of others are flags here.
func TestComingFromParses(t *testing.T) {
	data, err := os.ReadFile("../../docs/coming-from.md")
	if err != nil {
		t.Fatal(err)
	}
	root, _ := newRoot()
	generate, _, err := root.Find([]string{"generate"})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(data)) {
		cells := strings.Split(strings.TrimSpace(line), "|")
		if len(cells) < 6 {
			continue
		}
		for i, span := range strings.Split(cells[len(cells)-2], "`") {
			if i%2 == 0 || !strings.HasPrefix(span, "-") {
				continue
			}
			n++
			for _, w := range strings.Fields(span) {
				if flag, long := strings.CutPrefix(w, "--"); long && generate.Flags().Lookup(flag) == nil ||
					!long && strings.HasPrefix(w, "-") && len(w) == 2 && generate.Flags().ShorthandLookup(w[1:]) == nil {
					t.Errorf("docs/coming-from.md: kvq generate has no %s", w)
				}
			}
		}
	}
	if n < 15 {
		t.Errorf("%d flags found, want many", n)
	}
}

// What can be run is run: with the made-up model and small sizes, or with the small model as the
// document has it, and then it prints what the document says.
func TestDocumentsRun(t *testing.T) {
	testlane.OnlyAll(t, "runs the documents' commands")
	needsXLA(t)
	t.Setenv("HF_HOME", t.TempDir())
	t.Setenv("COLUMNS", "")
	t.Setenv(asKVQ, "1") // bench measures memory in processes of its own
	model := tinyModel(t, nil)
	text := write(t, []byte(strings.Repeat(tinyText(5, 6, 7, 9), 20)), t.TempDir(), "text.txt")
	for _, c := range documented(t) {
		w := ways[c.Line]
		if w.args == nil {
			continue
		}
		t.Run(c.Line, func(t *testing.T) {
			if len(w.args) == 0 && (c.Output != "" || c.Input != "") {
				if _, err := asset.SmallModel(); err != nil {
					t.Skip(err)
				}
			}
			args := replaced(slices.Concat(c.Words()[1:], w.args), model, text)
			in := ""
			if c.Input != "" {
				pipe := exec.Command("bash", "-c", c.Input)
				pipe.Dir = "../.."
				data, err := pipe.Output()
				if err != nil || len(data) == 0 {
					t.Fatalf("%s: %v", c.Input, err)
				}
				in = string(data)
			}
			status, out, errs := runKVQ(t, in, args...)
			if status != exitOK || out == "" {
				t.Fatalf("kvq %q: status %d, %q, %q", args, status, out, errs)
			}
			if c.Output != "" && !strings.Contains(out, strings.TrimRight(c.Output, "\n")) {
				t.Errorf("%s has\n%s\nit printed\n%s", c.Place, c.Output, out)
			}
		})
	}
}
