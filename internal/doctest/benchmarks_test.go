package doctest

import (
	"path"
	"regexp"
	"strings"
	"testing"
)

var figure = regexp.MustCompile(`\d+\.\d\d+( / \d+\.\d\d+)?`)

// What docs/benchmarks.md quotes with two places or more, times and pairs of ratios, stands in the
// section that its row links to; a row without a link has that of the row before. Goals, in the
// second column, are no quotations.
func TestBenchmarksQuoteTheirSections(t *testing.T) {
	section, n := "", 0
	for line := range strings.Lines(read(t, "docs/benchmarks.md")) {
		cells := strings.Split(strings.TrimSpace(line), "|")
		if len(cells) < 4 {
			section = ""
			continue
		}
		if m := link.FindStringSubmatch(line); m != nil {
			section = read(t, path.Join("docs", m[1]))
		}
		if section == "" {
			continue
		}
		for _, cell := range cells[3:] {
			for _, quoted := range figure.FindAllString(cell, -1) {
				if n++; !strings.Contains(section, quoted) {
					t.Errorf("docs/benchmarks.md quotes %s, which its section does not have:\n%s", quoted, line)
				}
			}
		}
	}
	if n < 100 {
		t.Errorf("%d figures found, want many", n)
	}
}
