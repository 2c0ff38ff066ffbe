package main

import (
	"strings"
	"testing"

	"github.com/kvqbook/kvqbook/internal/testlane"
)

// The made-up model finds nothing, but with as many rows as lengths, and the same texts for both
// caches.
func TestPasskey(t *testing.T) {
	testlane.Slow(t, "the small model with long prompts")
	needsXLA(t)
	model := tinyModel(t, nil)
	flags := []string{"passkey", "--model", model, "--lengths", "480,500", "--trials", "2", "--batch", "2"}
	j := parse[passkeyJSON](t, mustRun(t, "", append(flags, "--q-group-size", "8", "--json")...))
	if len(j.Rows) != 2 || j.Rows[0].Length != 480 || j.Rows[1].Length != 500 || j.Cache != "quanto 4 bit g8 r64" || j.Device == "" {
		t.Fatalf("%+v", j)
	}
	for _, r := range j.Rows {
		if r.Trials != 2 || r.Found < 0 || r.Found > 2 || r.FullFound < 0 || r.FullFound > 2 {
			t.Errorf("%+v", r)
		}
	}
	flags[4] = "480"
	if out := mustRun(t, "", append(flags, "--cache", "full")...); !strings.Contains(out, "│ tokens │ keys │ found │ found in full precision │") || strings.Count(out, " 480 │") != 1 {
		t.Errorf("%s", out)
	}
}

func TestPasskeyRefuses(t *testing.T) {
	model := tinyModel(t, nil)
	for _, c := range []struct {
		flags []string
		want  string
	}{
		{[]string{"--lengths", "600"}, "--lengths 600, the model reads at most 512 tokens"},
		{[]string{"--lengths", "20"}, "a passkey in 20 tokens: the question alone has "},
		{[]string{"--trials", "0"}, "--trials 0 and --batch 5, want at least 1 of each"},
	} {
		status, out, errs := runKVQ(t, "", append([]string{"passkey", "--model", model, "--q-group-size", "8"}, c.flags...)...)
		if status != exitBadInput || out != "" || !strings.HasPrefix(errs, "kvq: "+c.want) || strings.Count(errs, "\n") != 1 {
			t.Errorf("%q: status %d, %q, %q; want %q", c.flags, status, out, errs, c.want)
		}
	}
}
