package nb

import (
	"image/color"
	"math"
	"slices"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Series is one line of a plot.
type Series struct {
	Name string
	X, Y []float64
	// Points marks every point, as for measurements.
	Points bool
	// Baseline draws the line grey and dashed: what the others are compared with.
	Baseline bool
}

// Axes are the title and the two axes of a plot. Labels carry units. Log axes are for what grows by
// factors; their ticks, and those of an axis that ends at a power of two, stand at powers of two.
type Axes struct {
	Title, X, Y string
	LogX, LogY  bool
}

// Lines plots series over common axes.
func (a Axes) Lines(series ...Series) Picture {
	p := newPlot(a.Title, a.X, a.Y)
	colors := []color.Color{codeColor, keyColor, valColor, newColor}
	for i, one := range series {
		points := make(plotter.XYs, len(one.X))
		for j := range points {
			points[j].X, points[j].Y = one.X[j], one.Y[j]
		}
		line := Must(plotter.NewLine(points))
		line.LineStyle = draw.LineStyle{Color: colors[i%len(colors)], Width: 2}
		if one.Baseline {
			line.LineStyle = draw.LineStyle{Color: faint, Width: 2, Dashes: []vg.Length{5, 3}}
		}
		p.Add(line)
		p.Legend.Add(one.Name, line)
		if one.Points {
			dots := Must(plotter.NewScatter(points))
			dots.GlyphStyle = draw.GlyphStyle{Color: line.Color, Radius: 3, Shape: draw.CircleGlyph{}}
			p.Add(dots)
		}
	}
	// The legend stands where lines are low: on the left if they rise.
	rise := 0.0
	for _, one := range series {
		rise += one.Y[len(one.Y)-1] - one.Y[0]
	}
	p.Legend.Top, p.Legend.Left = true, rise > 0
	scale := func(axis *plot.Axis, log bool) {
		switch _, half := math.Frexp(axis.Max); {
		case log:
			axis.Scale, axis.Tick.Marker = plot.LogScale{}, powersOfTwo{1}
			axis.Max = math.Exp2(math.Ceil(math.Log2(axis.Max)))
		case axis.Max >= 32 && math.Exp2(float64(half-1)) == axis.Max:
			axis.Tick.Marker = powersOfTwo{axis.Max / 8}
		}
	}
	if !a.LogY {
		p.Y.Max *= 1 + 0.07*float64(len(series)) // room for the legend
	} else {
		p.Y.Min = math.Inf(1)
		for _, one := range series {
			p.Y.Min = min(p.Y.Min, slices.Min(one.Y))
		}
		p.Y.Min = math.Exp2(math.Floor(math.Log2(p.Y.Min)))
	}
	scale(&p.X, a.LogX)
	scale(&p.Y, a.LogY)
	return render(p, 560, 300)
}

// powersOfTwo are ticks at powers of two, the smallest at least from; on a linear axis smaller ones
// would stand too close.
type powersOfTwo struct{ from float64 }

// Ticks implements plot.Ticker.
func (t powersOfTwo) Ticks(low, high float64) (ticks []plot.Tick) {
	if low <= 0 && t.from > 1 {
		ticks = append(ticks, plot.Tick{Value: 0, Label: "0"})
	}
	for v := math.Exp2(math.Floor(math.Log2(max(low, 1e-9)))); v <= high; v *= 2 {
		label := strconv.FormatFloat(v, 'f', -1, 64)
		if v < 1 {
			label = strconv.FormatFloat(v, 'g', 2, 64)
		}
		if v >= low && (t.from == 1 || v >= t.from) {
			ticks = append(ticks, plot.Tick{Value: v, Label: label})
		}
	}
	return ticks
}

// Part is one colour of stacked bars: a height for every bar.
type Part struct {
	Name    string
	Heights []float64
}

// Bars plots stacked bars side by side; the baseline is one of them.
func Bars(title, yLabel string, names []string, parts ...Part) Picture {
	p := newPlot(title, "", yLabel)
	colors := []color.Color{faint, codeColor, keyColor, valColor, holdColor, newColor}
	var below *plotter.BarChart
	for i, part := range parts {
		bars := Must(plotter.NewBarChart(plotter.Values(part.Heights), 70))
		bars.Color, bars.LineStyle.Width = colors[i%len(colors)], 0
		if below != nil {
			bars.StackOn(below)
		}
		p.Add(bars)
		p.Legend.Add(part.Name, bars)
		below = bars
	}
	p.NominalX(names...)
	p.X.Min, p.X.Max = -0.7, float64(len(names))-0.3
	p.Legend.Top = true
	p.Y.Max *= 1.35 // room for the legend
	return render(p, 560, 300)
}

func newPlot(title, xLabel, yLabel string) *plot.Plot {
	sans := func(f *font.Font, size vg.Length) { f.Variant, f.Size = "Sans", size }
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = title, xLabel, yLabel
	sans(&p.Title.TextStyle.Font, 12)
	p.Title.Padding = 8
	for _, axis := range []*plot.Axis{&p.X, &p.Y} {
		sans(&axis.Label.TextStyle.Font, 10.5)
		sans(&axis.Tick.Label.Font, 9.5)
	}
	sans(&p.Legend.TextStyle.Font, 10)
	p.Legend.Padding, p.Legend.ThumbnailWidth = 3, 18
	p.Y.Min = 0
	grid := plotter.NewGrid()
	grid.Vertical.Width = 0
	grid.Horizontal.Color = color.RGBA{0xdd, 0xe1, 0xe5, 0xff}
	p.Add(grid)
	return p
}

func render(p *plot.Plot, width, height float64) Picture {
	s := newSketch(width, height)
	p.Draw(draw.Crop(s.Canvas, 6, -10, 6, -6))
	return s.picture()
}
