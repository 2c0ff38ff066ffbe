package doctest

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/kvqbook/kvqbook/internal/testlane"
)

// way is how a command line of the documents is tried.
type way struct {
	run  bool   // it is run as it stands, in the lane --all
	test string // a test that runs it, or what it calls
	not  string // why it is not run
}

// ways are those of the scripts and of go. kvq's own are in cmd/kvq. `go test` of packages is what
// ./scripts/test does, so it needs no line.
var ways = map[string]way{
	"./scripts/setup":                     {test: "TestMissingOnTheMachine", not: "as a whole it fetches 600 MB; ./scripts/test begins with it"},
	"./scripts/setup --cuda":              {not: "fetches 3 GB"},
	"./scripts/setup --shared":            {test: "TestCloneOfSomebodyElse", not: "as a whole it takes 2 GB; ./scripts/test-bare --hub runs it"},
	"./scripts/workbook kernel --user":    {test: "TestRegisterKernel"},
	"./scripts/setup --hub":               {test: "TestCloneOfSomebodyElse", not: "as a whole it fetches 2 GB; scripts/test-bare --hub runs it, and plays its room"},
	"./scripts/workbook pack":             {test: "TestPackArguments", not: "as a whole it makes 500 MB"},
	"./scripts/workbook":                  {not: "stays until JupyterLab is ended"},
	"./scripts/workbook book":             {test: "TestBook"},
	"./scripts/workbook check":            {test: "TestWorkbookCheck"},
	"./scripts/workbook run":              {not: "./scripts/test executes the notebooks by the same program"},
	"./scripts/workbook run --save":       {test: "TestRunnerSavesNoPaths"},
	"./scripts/test":                      {not: "is what runs this"},
	"./scripts/test --quick":              {not: "is what runs this"},
	"./scripts/test --all":                {not: "is what runs this"},
	"./scripts/test --help":               {test: "TestHelp"},
	"./scripts/test --list":               {run: true},
	"./scripts/bench":                     {not: "hours"},
	"./scripts/bench --list":              {run: true},
	"./scripts/quality":                   {not: "hours; TestResultsAreFoundAgain and others try its parts"},
	"./scripts/soak":                      {not: "hours"},
	"./scripts/soak fuzz":                 {not: "an hour"},
	"./scripts/soak kill":                 {not: "an hour"},
	"./scripts/soak --quick":              {test: "TestQuick"},
	"./scripts/soak --list":               {run: true},
	"./scripts/notice":                    {test: "TestNoticeIsCurrent"},
	"./scripts/first-five-minutes":        {test: "TestPlay", not: "as a whole it takes minutes"},
	"./scripts/check-release":             {test: "TestThisTree", not: "as a whole it takes minutes, and its linter the network"},
	"go build -o bin/kvq ./cmd/kvq":       {not: "set-up builds it so"},
	"go test -c":                          {not: "a part of a command line; the packages are parts of every lane"},
	"go doc ./kvq":                        {run: true},
	"go doc ./llama":                      {run: true},
	"go doc -all ./kvq":                   {run: true},
	"go mod tidy":                         {not: "in a folder that the reader makes; wants the network"},
	"go mod init example.com/try":         {not: "in a folder that the reader makes"},
	"go test ./llama -run Sizes -update":  {not: "writes a file of the clone; without -update it is in every lane"},
	"go test ./internal/cmd/soak -update": {not: "writes a file of the clone; without -update it is in every lane"},
	"go get github.com/gomlx/gomlx@vX github.com/gomlx/go-xla@vY":                                           {not: "X and Y are versions to come"},
	"go run ./internal/cmd/randomllama -out /tmp/random7b":                                                  {test: "TestRandomLlama", not: "whole it writes 13.5 GB"},
	"go test ./kvq -run XXX -bench Attend -benchtime 1x":                                                    {not: "a minute of timing"},
	"go test ./kvq -run xxx -bench BenchmarkAttend":                                                         {not: "minutes of timing"},
	"go test ./llama -run XXX -bench LoadWeights -benchtime 7x":                                             {not: "writes and reads gigabytes"},
	"./scripts/quality --judge --backend xla:cuda --jobs 6":                                                 {test: "TestJudgeOnRandomModel", not: "wants a GPU"},
	"./scripts/quality --backend xla:cuda --jobs 14":                                                        {not: "wants a GPU"},
	"./scripts/test --all --only internal/guardtest":                                                        {not: "is a part of --all"},
	"./scripts/test --only kvq --only notebooks/01-kv-cache-quantization":                                   {not: "is a part of every lane"},
	"go mod edit -require github.com/kvqbook/kvqbook@v0.0.0 -replace github.com/kvqbook/kvqbook=../kvqbook": {not: "in a folder that the reader makes"},
	"go run . ../kvqbook/.setup/models/SmolLM2-135M-Instruct.Q4_1.gguf":                                     {test: "TestReadmesProgramPrints"},
	"go test ./internal/jinja -run xxx -fuzz FuzzTemplate -fuzztime 60s -fuzzminimizetime 1x":               {not: "a minute; ./scripts/soak fuzz does it for an hour"},
}

// Untried says what is wrong with a table of ways: command lines without a way, ways without a
// command line, tests that are not there.
func untried(t *testing.T, commands []Command, ways map[string]way) {
	t.Helper()
	var tests []string
	walk(t, func(name string) {
		if strings.HasSuffix(name, "_test.go") {
			tests = append(tests, declared(t, name)...)
		}
	})
	shown := map[string]bool{}
	for _, c := range commands {
		w, known := ways[c.Line]
		shown[c.Line] = true
		switch {
		case !known:
			t.Errorf("%s: %q is neither run by a test nor has a reason why not: give it a way", c.Place, c.Line)
		case !w.run && w.test == "" && w.not == "":
			t.Errorf("%q: its way says nothing", c.Line)
		case w.test != "" && !slices.Contains(tests, w.test):
			t.Errorf("%q is said to be tried by %s, which is not there", c.Line, w.test)
		}
	}
	for line := range ways {
		if !shown[line] {
			t.Errorf("no document has %q any more: take its way out", line)
		}
	}
}

// inLanes tells whether a command line tests packages, and does nothing else.
func inLanes(c Command) bool {
	return strings.HasPrefix(c.Line, "go test ./") && !regexp.MustCompile(` -(update|bench|fuzz)`).MatchString(c.Line)
}

func TestEveryCommandIsTried(t *testing.T) {
	all, err := Commands(root)
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 60 {
		t.Errorf("%d command lines found, want many", len(all))
	}
	ours := slices.DeleteFunc(all, func(c Command) bool { return strings.HasPrefix(c.Line, "kvq ") || inLanes(c) })
	untried(t, ours, ways)
}

// Scripts have the flags and words that documents give them, packages are there, and patterns of
// tests find some.
func TestCommandsFit(t *testing.T) {
	testlane.Slow(t, "asks each script for its help")
	all, err := Commands(root)
	if err != nil {
		t.Fatal(err)
	}
	names := map[string][]string{} // of tests, benchmarks and fuzz targets, by folder
	walk(t, func(name string) {
		if strings.HasSuffix(name, "_test.go") {
			folder := filepath.ToSlash(filepath.Dir(name))
			names[folder] = append(names[folder], declared(t, name)...)
		}
	})
	helps := map[string]string{}
	for _, c := range all {
		words := c.Words()
		switch {
		case strings.HasPrefix(words[0], "./scripts/"):
			script := words[0]
			if helps[script] == "" {
				help := exec.Command(script, "--help")
				help.Dir = root
				out, err := help.CombinedOutput()
				if err != nil {
					t.Fatalf("%s: %s --help: %v\n%s", c.Place, script, err, out)
				}
				helps[script] = string(out)
			}
			for _, w := range words[1:] {
				named := strings.HasPrefix(w, "--") || script == "./scripts/workbook"
				if named && w != "--help" && !regexp.MustCompile(regexp.QuoteMeta(w)+`\b`).MatchString(helps[script]) {
					t.Errorf("%s: %s has no %s in its --help", c.Place, script, w)
				}
			}
		case words[0] == "go":
			var folders []string
			for i, w := range words[1:] {
				if strings.HasPrefix(w, "./") {
					folders = append(folders, strings.TrimPrefix(w, "./"))
					if !exists(w) {
						t.Errorf("%s: %q: there is no %s", c.Place, c.Line, w)
					}
				}
				if w != "-run" && w != "-bench" && w != "-fuzz" || i+2 >= len(words) {
					continue
				}
				for _, pattern := range strings.Split(words[i+2], "|") {
					pattern, _, _ = strings.Cut(pattern, "/")
					if strings.EqualFold(pattern, "xxx") {
						continue
					}
					if !slices.ContainsFunc(folders, func(folder string) bool {
						return slices.ContainsFunc(names[folder], regexp.MustCompile(pattern).MatchString)
					}) {
						t.Errorf("%s: %q: nothing in %v is called %s", c.Place, c.Line, folders, pattern)
					}
				}
			}
		}
	}
}

// What can be run as it stands does so, and ends well.
func TestCommandsRun(t *testing.T) {
	testlane.OnlyAll(t, "runs scripts")
	for line, w := range ways {
		if !w.run {
			continue
		}
		c := exec.Command("bash", "-c", line)
		c.Dir = root
		if out, err := c.CombinedOutput(); err != nil || len(out) == 0 {
			t.Errorf("%s: %v\n%s", line, err, out)
		}
	}
}

// The commands of a document are found as they stand in it, with what it prints below them.
func TestCommandsOf(t *testing.T) {
	text := "Call `bin/kvq  show` or `kvq\nlist --json` (`kvq`, `cd x`).\n\n```\n$ bin/kvq memory | tail -n 2\n one\n two\n$ cd ..\n$ kvq rm \"a b\"   # gone\n" +
		"```\n\n    ./scripts/test --quick   # a remark\n    go run . x\n    gone home\n\nand `kvq generate …`, `go get`.\n\n`head -c 3 x | bin/kvq compare -p -` and `a | grep kvq`\n"
	got := commandsOf("d.md", text)
	want := []Command{
		{"kvq memory | tail -n 2", "", "d.md:5", " one\n two\n"}, {`kvq rm "a b"`, "", "d.md:9", ""},
		{"./scripts/test --quick", "", "d.md:12", ""}, {"go run . x", "", "d.md:13", ""},
		{"kvq show", "", "d.md:1", ""}, {"kvq list --json", "", "d.md:1", ""}, {"kvq compare -p -", "head -c 3 x", "d.md:18", ""},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	for line, want := range map[string]string{
		`kvq generate "Once upon" -n 4`: "kvq|generate|Once upon|-n|4",
		"kvq memory | tail -n 2":        "kvq|memory",
		"kvq login < file":              "kvq|login",
		"go test -run 'A|B/.*7'":        "go|test|-run|A|B/.*7",
		`kvq x --y="a b"`:               "kvq|x|--y=a b",
	} {
		if got := strings.Join((Command{Line: line}).Words(), "|"); got != want {
			t.Errorf("%s: %s, want %s", line, got, want)
		}
	}
}

// README's program prints what README says.
func TestReadmesProgramPrints(t *testing.T) {
	testlane.OnlyAll(t, "runs the small model")
	model := os.Getenv("KVQ_MODEL")
	if model == "" {
		model = filepath.Join(root, ".setup", "models", "SmolLM2-135M-Instruct.Q4_1.gguf")
	}
	model, err := filepath.Abs(model)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(model); err != nil {
		if os.Getenv("KVQ_REQUIRE_XLA") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	all, err := Commands(root)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(all, func(c Command) bool {
		return strings.HasPrefix(c.Line, "go run . ") && strings.HasPrefix(c.Place, "README.md")
	})
	if i < 0 || all[i].Output == "" {
		t.Fatal("README.md does not say what its program prints")
	}
	_, program, _ := strings.Cut(read(t, "README.md"), "```go\n")
	program, _, _ = strings.Cut(program, "```")
	file := filepath.Join(t.TempDir(), "main.go")
	if err := os.WriteFile(file, []byte(program), 0o644); err != nil {
		t.Fatal(err)
	}
	c := exec.Command("go", "run", file, model)
	c.Dir = root
	out, err := c.Output()
	if err != nil || string(out) != all[i].Output {
		t.Errorf("%v; printed\n%s\nREADME.md has\n%s", err, out, all[i].Output)
	}
}
