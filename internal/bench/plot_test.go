package bench

import (
	"regexp"
	"strings"
	"testing"
)

func TestPlot(t *testing.T) {
	svg, err := Plot("time", "tokens", "ms a token", Line{Name: "measured", X: []float64{1, 2}, Y: []float64{3, 5}},
		Line{Name: "limit", X: []float64{1, 2}, Y: []float64{2, 4}, Limit: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"<svg", ">ms a token<", ">limit<", "stroke-dasharray:"} {
		if !strings.Contains(string(svg), want) {
			t.Errorf("the plot has no %s", want)
		}
	}
}

// Lines and limits of several things differ in more than their colours: without them the picture
// has as many kinds of strokes and marks.
func TestPlotWithoutColours(t *testing.T) {
	line := func(name string, y float64, limit bool) Line {
		return Line{Name: name, X: []float64{1, 2}, Y: []float64{y, y + 1}, Limit: limit}
	}
	svg, err := Plot("time", "tokens", "ms a token", line("a", 1, false), line("a's limit", 2, true), line("b", 3, false), line("b's limit", 4, true))
	if err != nil {
		t.Fatal(err)
	}
	dashes := map[string]bool{}
	for _, m := range regexp.MustCompile(`stroke-dasharray:([0-9.,]+)`).FindAllStringSubmatch(string(svg), -1) {
		dashes[m[1]] = true
	}
	if len(dashes) != 2 {
		t.Errorf("dashes %v, want two kinds", dashes)
	}
	// A circle's path has arcs, a box's has none.
	marks := regexp.MustCompile(`<path d="(M[^"]*Z)" style="fill`).FindAllStringSubmatch(string(svg), -1)
	circles := 0
	for _, m := range marks {
		if strings.ContainsAny(m[1], "A") {
			circles++
		}
	}
	if circles == 0 || circles == len(marks) {
		t.Errorf("%d of %d marks are circles, want half of them", circles, len(marks))
	}
}
