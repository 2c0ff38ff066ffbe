package doctest

import (
	"regexp"
	"strings"
	"testing"

	"github.com/kvqbook/kvqbook/internal/cli"
)

// The newest version of CHANGELOG.md is the constant, and figures with two places or more are
// those of the documents that measured them.
func TestChangelog(t *testing.T) {
	text := read(t, "CHANGELOG.md")
	m := regexp.MustCompile(`(?m)^## (v\d+\.\d+\.\d+)`).FindStringSubmatch(text)
	if m == nil || m[1] != cli.Release {
		t.Errorf("the newest section of a version in CHANGELOG.md is %q, cli.Release is %s", m, cli.Release)
	}
	measured := read(t, "docs/benchmarks.md") + read(t, "docs/quality.md")
	n := 0
	for _, f := range regexp.MustCompile(`\b\d+\.\d\d+\b(?:\.\d)?`).FindAllString(text, -1) {
		if strings.Count(f, ".") > 1 {
			continue
		}
		if n++; !strings.Contains(measured, f) {
			t.Errorf("CHANGELOG.md has the figure %s, which neither docs/benchmarks.md nor docs/quality.md has", f)
		}
	}
	if n < 5 {
		t.Errorf("%d figures found, want those of the release notes", n)
	}
}
