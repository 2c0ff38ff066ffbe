package bench

import (
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
