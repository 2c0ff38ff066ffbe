package nb

import (
	"math"
	"slices"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Dot is a cache in a picture of quality against memory. One with a name is drawn larger, with the
// name beside it.
type Dot struct {
	Name     string
	Bits, KL float64 // bits a value; nats, above 0
}

// spot is where a name may stand beside its dot.
type spot struct{ right, above bool }

// spots are tried in this order.
var spots = []spot{{true, false}, {false, false}, {true, true}, {false, true}}

// Sizes of a name in the units of the axes: bits a letter, and factors of ten above and below.
const letterBits, nameTens = 0.085, 0.3

// covers tells whether a name of so many letters at that spot beside a dot lies over a point.
func (s spot) covers(dot plotter.XY, letters int, x, kl float64) bool {
	const gap = 0.06 // bits between a dot and its name
	from, to := dot.X+gap, dot.X+gap+letterBits*float64(letters)
	if !s.right {
		from, to = 2*dot.X-to, 2*dot.X-from
	}
	up := math.Log10(kl) - math.Log10(dot.Y)
	if !s.above {
		up = -up
	}
	return from <= x && x <= to && 0 < up && up < nameTens
}

// spotOf finds where a name lies over no other dot and over no line; the first spot where there is
// none.
func spotOf(dot plotter.XY, letters int, dots []Dot, lines []Series) spot {
	for _, s := range spots {
		dotBelow := func(d Dot) bool {
			return (d.Bits != dot.X || d.KL != dot.Y) && s.covers(dot, letters, d.Bits, d.KL)
		}
		lineBelow := func(line Series) bool {
			for i := 1; i < len(line.X); i++ {
				for step := range 17 { // points of the line, close to each other
					part := float64(step) / 16
					kl := math.Pow(line.Y[i-1], 1-part) * math.Pow(line.Y[i], part)
					if s.covers(dot, letters, (1-part)*line.X[i-1]+part*line.X[i], kl) {
						return true
					}
				}
			}
			return false
		}
		if !slices.ContainsFunc(dots, dotBelow) && !slices.ContainsFunc(lines, lineBelow) {
			return s
		}
	}
	return spots[0]
}

// Frontier plots caches: bits on the one axis, divergence on the other, which grows by factors of
// ten. lines are joined, as for settings that differ in one number alone.
func Frontier(title string, dots []Dot, lines ...Series) Picture {
	p := newPlot(title, "bits a value, with scales and zero points", "KL divergence in nats (log)")
	p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, tens{}
	var named, others plotter.XYs
	var names []string
	for _, d := range dots {
		if d.Name == "" {
			others = append(others, plotter.XY{X: d.Bits, Y: d.KL})
			continue
		}
		named, names = append(named, plotter.XY{X: d.Bits, Y: d.KL}), append(names, d.Name)
	}
	add := func(legend string, at plotter.XYs, radius vg.Length, glyph draw.GlyphDrawer) {
		if len(at) == 0 {
			return
		}
		marks := Must(plotter.NewScatter(at))
		marks.GlyphStyle = draw.GlyphStyle{Color: codeColor, Radius: radius, Shape: glyph}
		p.Add(marks)
		p.Legend.Add(legend, marks)
	}
	add("measured before: named caches", named, 4, draw.CircleGlyph{})
	add("measured before: others", others, 2.5, draw.RingGlyph{})
	for i, at := range named {
		labels := Must(plotter.NewLabels(plotter.XYLabels{XYs: plotter.XYs{at}, Labels: names[i : i+1]}))
		labels.Offset = vg.Point{X: 5, Y: -11}
		spot := spotOf(at, len(names[i]), dots, lines)
		if spot.above {
			labels.Offset.Y = 4
		}
		if !spot.right {
			labels.Offset.X, labels.TextStyle[0].XAlign = -5, draw.XRight
		}
		labels.TextStyle[0].Font.Variant, labels.TextStyle[0].Font.Size = "Sans", 9.5
		p.Add(labels)
	}
	low, high, fewest := math.Inf(1), math.Inf(-1), 2.0
	for _, d := range dots {
		low, high, fewest = min(low, d.KL), max(high, d.KL), min(fewest, math.Floor(d.Bits))
	}
	for i, s := range lines {
		points := make(plotter.XYs, len(s.X))
		for j := range points {
			points[j].X, points[j].Y = s.X[j], s.Y[j]
		}
		line, marks := Must(plotter.NewLine(points)), Must(plotter.NewScatter(points))
		c := []draw.GlyphStyle{{Color: newColor, Radius: 3, Shape: draw.BoxGlyph{}}, {Color: valColor, Radius: 3, Shape: draw.TriangleGlyph{}}}[i%2]
		line.LineStyle, marks.GlyphStyle = draw.LineStyle{Color: c.Color, Width: 1.6}, c
		p.Add(line, marks)
		p.Legend.Add(s.Name, line, marks)
		low, high = min(low, slices.Min(s.Y)), max(high, slices.Max(s.Y))
	}
	p.Y.Min, p.Y.Max = math.Pow(10, math.Floor(math.Log10(low))), math.Pow(10, math.Ceil(math.Log10(high)))
	p.X.Min, p.X.Max = fewest, 9
	var bits plot.ConstantTicks
	for n := fewest; n <= p.X.Max; n++ {
		bits = append(bits, plot.Tick{Value: n, Label: strconv.Itoa(int(n))})
	}
	p.X.Tick.Marker = bits
	p.Legend.Top = true
	return render(p, 600, 380)
}

// tens are ticks at powers of ten.
type tens struct{}

// Ticks implements plot.Ticker.
func (tens) Ticks(low, high float64) (ticks []plot.Tick) {
	for e := math.Ceil(math.Log10(low) - 1e-9); e <= math.Log10(high)+1e-9; e++ {
		v := math.Pow(10, e)
		ticks = append(ticks, plot.Tick{Value: v, Label: strconv.FormatFloat(v, 'f', max(0, int(-e)), 64)})
	}
	return ticks
}
