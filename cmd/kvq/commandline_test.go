package main

import (
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// What does not parse is said in the words of who typed it, with what was probably meant.
func TestParseErrors(t *testing.T) {
	for line, want := range map[string]string{
		"genrate":                       `kvq: unknown command "genrate" for kvq, want one of: bench, `,
		"genrate --prompt x":            `; did you mean generate?`,
		"bench nope":                    `kvq: unknown command "nope" for kvq bench, want one of: attention, compile, `,
		"bench decod":                   `; did you mean decode?`,
		"devices now":                   `kvq: kvq devices takes no argument, got "now" (kvq devices --help lists the flags)`,
		"completion tcsh":               `kvq: unknown command "tcsh" for kvq completion, want one of: bash, fish, powershell, zsh`,
		"generate --max-new-token 3":    `; did you mean --max-new-tokens? (kvq generate --help lists the flags)`,
		"generate --nbits four":         `kvq: --nbits four: want a whole number`,
		"generate --temperature warm":   `kvq: --temperature warm: want a number`,
		"generate --preset ballanced":   `; did you mean balanced?`,
		"generate one two":              `kvq: want one text, in quotes if it has blanks, or --prompt for each text of a batch; got 2 arguments: one | two`,
		"generate one --prompt two":     `kvq: "one" beside --prompt or --prompt-file: want one or the other`,
		"generate x --lines":            `kvq: --lines needs --prompt-file FILE or --prompt -`,
		"generate x --system y":         `kvq: --system needs --chat`,
		"generate --prompt-file /none":  `kvq: --prompt-file: open /none: no such file`,
		"generate x --layer-bits 99=6/": `kvq: --layer-bits: want entries like`,
	} {
		args := strings.Fields(line)
		if args[0] == "generate" {
			args = append(args, "--model", tinyModel(t, nil), "--q-group-size", "8")
		}
		status, out, errs := runKVQ(t, "", args...)
		if status != exitBadInput || out != "" || !strings.Contains(errs, want) || strings.Count(errs, "\n") != 1 {
			t.Errorf("%s: status %d, %q, %q; want status 2 and %q", line, status, out, errs, want)
		}
	}
}

// Every way to say a text gives the same prompts.
func TestWaysToGivePrompts(t *testing.T) {
	dir := t.TempDir()
	file := write(t, []byte("one\ntwo\r\n"), dir, "text.txt")
	binary := write(t, []byte("one\xff\n"), dir, "binary")
	for _, c := range []struct {
		flags promptFlags
		args  []string
		in    string
		want  []string
		bad   string
	}{
		{want: tutorialPrompts},
		{args: []string{"one"}, want: []string{"one"}},
		{flags: promptFlags{prompts: []string{"one", "two"}}, want: []string{"one", "two"}},
		{args: []string{"-"}, in: "one\ntwo\n", want: []string{"one\ntwo"}},
		{flags: promptFlags{prompts: []string{"-"}}, in: "one\n\n", want: []string{"one\n"}},
		{flags: promptFlags{prompts: []string{"-"}, lines: true}, in: "one\n \ntwo", want: []string{"one", "two"}},
		{flags: promptFlags{file: file}, want: []string{"one\ntwo"}},
		{flags: promptFlags{file: file, lines: true}, want: []string{"one", "two"}},
		{flags: promptFlags{prompts: []string{"zero"}, file: file}, want: []string{"zero", "one\ntwo"}},
		{flags: promptFlags{prompts: []string{"-"}}, in: " \n", bad: "--prompt -: standard input holds no prompt"},
		{flags: promptFlags{file: binary}, bad: "want text in UTF-8, got the byte 0xff at 3"},
		{flags: promptFlags{prompts: []string{"-"}}, in: "a\x00", bad: "--prompt -: standard input: want text in UTF-8, got the byte 0x00 at 1"},
	} {
		err := c.flags.take(c.args)
		var got []string
		if err == nil {
			got, err = c.flags.texts(strings.NewReader(c.in))
		}
		if c.bad != "" {
			if err == nil || !strings.Contains(err.Error(), c.bad) {
				t.Errorf("%+v, input %q: %q, %v; want %q", c.flags, c.in, got, err, c.bad)
			}
		} else if err != nil || strings.Join(got, "|") != strings.Join(c.want, "|") {
			t.Errorf("%+v, input %q: %q, %v; want %q", c.flags, c.in, got, err, c.want)
		}
	}
}

// A shell completes commands, flags and the words that flags take.
func TestCompletion(t *testing.T) {
	for line, want := range map[string][]string{
		"gen":                      {"generate"},
		"generate --pre":           {"--preset"},
		"generate --preset ":       {"balanced", "smallest"},
		"evaluate --cache-backend": {"--cache-backend"},
		"compare --dtype ":         {"float16", "bfloat16"},
		"bench decode --preset ":   {"balanced"},

		"evaluate --preset full,":   {"full,balanced"},
		"generate --preset lo":      {"lower", "lowest"},
		"layerb":                    {"layerbits"},
		"layerbits --preset lo":     {"lower", "lowest"},
		"memory --preset ":          {"full", "tutorial"},
		"generate --backend ":       {"xla:cpu", "xla:cuda", "go"},
		"devices --backend ":        {"xla:cpu"},
		"evaluate --cache-backend ": {"quanto", "hqq", "blocks"},
		"generate --dtype bf":       {"bfloat16"},
		"bench decode --weights ":   {"auto", "packed", "plain"},
		"generate --cache ":         {"quantized", "full"},
		"bench attention --shape ":  {"smollm2", "llama2-7b"},
		"bench decode --random ":    {"llama2-7b"},
		"bench peers --presets ":    {"balanced"},
		"generate --nbits ":         {"4", "8"},
		"generate --range-key ":     {"minmax"},
		"generate --scales ":        {"float16"},
	} {
		words := strings.Split(line, " ")
		out := mustRun(t, "", append([]string{"__complete"}, words...)...)
		for _, w := range want {
			if !strings.Contains("\n"+out, "\n"+w) {
				t.Errorf("%q: want %s among the completions, got %q", line, w, out)
			}
		}
	}
}

// Help lists first what most people want, and the rest under headings.
func TestHelpHasHeadings(t *testing.T) {
	help := mustRun(t, "", "generate", "--help")
	at := 0
	for _, want := range []string{"\nFlags:\n", "--max-new-tokens", "--preset", "--prompt ", "\nSampling:\n", "--temperature",
		"\nCache:\n", "--nbits ", "--sinks", "\nModel and device:\n", "--weights"} {
		next := strings.Index(help[at:], want)
		if next < 0 {
			t.Fatalf("%q is not where it belongs in the help:\n%s", want, help)
		}
		at += next
	}
}

// The flags before the first heading are few enough to be read: ten, and --help.
func TestHelpBeginsWithTenFlags(t *testing.T) {
	root, _ := newRoot()
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			walk(sub)
		}
		if !c.IsAvailableCommand() || c.Flags() == nil {
			return
		}
		_, flags, found := strings.Cut(mustRun(t, "", append(strings.Fields(c.CommandPath())[1:], "--help")...), "\nFlags:\n")
		if !found {
			return
		}
		flags, _, _ = strings.Cut(flags, "\n\n")
		list := regexp.MustCompile(`(?m)^ {2,6}(?:-\w, )?--([a-z0-9-]+)`).FindAllStringSubmatch(flags, -1)
		if n := len(list) - 1; n > 10 {
			t.Errorf("%s --help begins with %d flags, want ten at most: %v", c.CommandPath(), n, list)
		}
	}
	walk(root)
}
