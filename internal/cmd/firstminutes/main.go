//go:build linux

// Command firstminutes plays three users in their first five minutes, each at a terminal, and
// prints what they see and when: ./scripts/first-five-minutes.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/kvqbook/kvqbook/internal/asset"
	"github.com/kvqbook/kvqbook/internal/randomllama"
)

func main() {
	kvq := flag.String("kvq", "bin/kvq", "the command")
	only := flag.String("only", "", "this user alone: cold, warm or own; warm means a second time, so cold comes before it")
	flag.Parse()
	ok, err := run(*kvq, *only)
	if err != nil {
		fmt.Fprintln(os.Stderr, "first-five-minutes:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

// longestSilence is how long a person looks at a screen on which nothing moves.
const longestSilence = 2 * time.Second

// user is one of those that are played.
type user struct {
	name, who string
	compiled  string // the folder of compiled graphs
	scenes    []scene
}

// run plays the users, and reports whether every command ended well and none was silent for long.
func run(kvq, only string) (bool, error) {
	kvq, err := filepath.Abs(kvq)
	if err != nil {
		return false, err
	}
	scratch, err := os.MkdirTemp("", "first-five-minutes-")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(scratch)
	own, err := ownFiles(scratch)
	if err != nil {
		return false, err
	}
	tutorial := []scene{
		{args: []string{"generate", "Once upon a time", "-n", "40"}},
		{args: []string{"compare"}},
		{args: []string{"chat", "-n", "40"}, types: "What is a cat?\n/quit\n"},
	}
	users := []user{
		{"cold", "just after set-up: nothing is compiled", filepath.Join(scratch, "compiled"), tutorial},
		{"warm", "the same a second time", filepath.Join(scratch, "compiled"), tutorial},
		{"own", "with files of their own: a model of 90 MB in Hugging Face's layout, a text of 2,000 bytes", filepath.Join(scratch, "compiled-own"), own},
	}
	version, err := exec.Command(kvq, "version").Output()
	if err != nil {
		return false, fmt.Errorf("%s version: %w", kvq, err)
	}
	fmt.Printf("%s%s, %d processors, load %s, %s\n", version, processor(), runtime.NumCPU(), load(), time.Now().UTC().Format("2006-01-02 15:04 UTC"))
	ok := true
	rows := []string{"| user | command | first line | first text | end | processor time | longest silence |", "| --- | --- | --- | --- | --- | --- | --- |"}
	for _, u := range users {
		if only != "" && only != u.name && !(only == "warm" && u.name == "cold") {
			continue
		}
		fmt.Printf("\n=== %s: %s\n", u.name, u.who)
		for _, s := range u.scenes {
			if !exists(kvq, s.args[0]) {
				fmt.Printf("\n(no kvq %s)\n", s.args[0])
				continue
			}
			seen, err := s.play(kvq, u.compiled)
			if err != nil {
				return false, err
			}
			seen.print()
			ok = ok && seen.failure == nil && seen.silence <= longestSilence
			rows = append(rows, fmt.Sprintf("| %s | `kvq %s` | %s | %s | %s | %s | %s |", u.name, strings.Join(short(s.args), " "),
				seconds(seen.firstLine), seconds(seen.firstText), seconds(seen.end), seconds(seen.cpu), seconds(seen.silence)))
		}
	}
	fmt.Printf("\n%s\n", strings.Join(rows, "\n"))
	return ok, nil
}

// ownFiles writes a model and a text that are nobody else's.
func ownFiles(scratch string) ([]scene, error) {
	root, err := asset.Root()
	if err != nil {
		return nil, err
	}
	shape, err := randomllama.Llama2(8)
	if err != nil {
		return nil, err
	}
	model := filepath.Join(scratch, "my-model")
	if err := randomllama.Write(model, shape, 2, 1); err != nil {
		return nil, err
	}
	if err := randomllama.Tokenizer(model, filepath.Join(root, "tokenizer/testdata/llama2-tokenizer.json.gz")); err != nil {
		return nil, err
	}
	story, err := os.ReadFile(filepath.Join(root, "docs/texts/story.txt"))
	if err != nil {
		return nil, err
	}
	text := filepath.Join(scratch, "my-text.txt")
	if err := os.WriteFile(text, story[:min(2000, len(story))], 0o644); err != nil {
		return nil, err
	}
	return []scene{
		{args: []string{"generate", "-m", model, "-f", text, "-n", "40"}},
		{args: []string{"compare", "-m", model, "-f", text}},
		{args: []string{"chat", "-m", model, "-n", "40"}, types: "What is a cat?\n/quit\n"},
	}, nil
}

// exists tells whether kvq has a command.
func exists(kvq, name string) bool { return exec.Command(kvq, name, "--help").Run() == nil }

// short are args without folders.
func short(args []string) []string {
	list := make([]string, len(args))
	for i, a := range args {
		if filepath.IsAbs(a) {
			a = filepath.Base(a)
		}
		if strings.Contains(a, " ") {
			a = fmt.Sprintf("%q", a)
		}
		list[i] = a
	}
	return list
}

func seconds(d time.Duration) string {
	if d < 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f s", d.Seconds())
}

// load is what else the machine does: how many processes wanted a processor in the last minute.
func load() string {
	data, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	first, _, _ := strings.Cut(string(data), " ")
	return first
}

// processor is the name of the machine's processors.
func processor() string {
	data, err := os.ReadFile("/proc/cpuinfo")
	if err == nil {
		for line := range strings.Lines(string(data)) {
			if name, ok := strings.CutPrefix(line, "model name"); ok {
				return strings.TrimSpace(strings.TrimLeft(name, "\t :"))
			}
		}
	}
	return runtime.GOARCH
}
