package nb

import (
	"testing"

	"gonum.org/v1/plot/plotter"
)

// A name goes where it hides nothing: right and below, else left, else above.
func TestNamesHideNothing(t *testing.T) {
	dot := Dot{"name", 3, 0.01}
	right, left := Dot{"", 3.2, 0.007}, Dot{"", 2.8, 0.007}
	line := Series{X: []float64{2.5, 3.5}, Y: []float64{0.007, 0.007}}
	for name, c := range map[string]struct {
		dots  []Dot
		lines []Series
		want  spot
	}{
		"nothing near":                {nil, nil, spot{true, false}},
		"a dot below it on the right": {[]Dot{right}, nil, spot{false, false}},
		"dots on both sides":          {[]Dot{right, left}, nil, spot{true, true}},
		"a line below":                {nil, []Series{line}, spot{true, true}},
		"another on top of it":        {[]Dot{{"", 3, 0.0102}, {"", 3, 0.0098}}, nil, spot{true, false}},
		"far below":                   {[]Dot{{"", 3.2, 0.001}}, nil, spot{true, false}},
	} {
		if got := spotOf(plotter.XY{X: dot.Bits, Y: dot.KL}, len(dot.Name), append(c.dots, dot), c.lines); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}
