package main

import (
	"image/color"
	"math"
	"path/filepath"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	plots "github.com/kvqbook/kvqbook/internal/bench"
)

// lineColors are told apart without colours too: each line has a mark of its own.
var (
	lineColors = []color.Color{color.RGBA{0x1f, 0x80, 0x79, 0xff}, color.RGBA{0x3b, 0x5b, 0xa5, 0xff}, color.RGBA{0x8e, 0x44, 0x9c, 0xff}, color.RGBA{0xb0, 0x3a, 0x3a, 0xff},
		color.RGBA{0x5d, 0x7a, 0x2c, 0xff}, color.RGBA{0x6b, 0x4f, 0x3a, 0xff}}
	lineMarks = []draw.GlyphDrawer{draw.CircleGlyph{}, draw.TriangleGlyph{}, draw.PyramidGlyph{}, draw.CrossGlyph{}, draw.PlusGlyph{}, draw.RingGlyph{}}
)

// intervals are points with error bars up and down.
type intervals struct {
	plotter.XYs
	plotter.YErrors
}

// picture draws the divergence by position, with a standard error up and down, and the tutorial's
// as the dashed line. nil where there is too little.
func (g judgedRun) picture() ([]byte, error) {
	p := plot.New()
	p.Title.Text = "Divergence by position in a text, " + strings.TrimSuffix(g.base.Model, filepath.Ext(g.base.Model))
	p.X.Label.Text, p.Y.Label.Text = "tokens before (log)", "KL divergence from full precision, nats (log)"
	p.X.Scale, p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, plot.LogScale{}, decades{}
	plots.Sans(p, 10)
	low, high, drawn := math.Inf(1), 0.0, 0
	edges := map[int]bool{}
	for _, c := range keyCaches() {
		r, ok := g.find(c, partPosition, 0)
		if !ok || !c.config.Quantized() {
			continue
		}
		var line intervals
		for _, b := range r.Judged.Bins {
			if !(b.KL > 0) {
				continue
			}
			edges[b.From], edges[b.To] = true, true
			// In the middle of a bin on the axis; the bar down ends above 0, which the axis lacks.
			line.XYs = append(line.XYs, plotter.XY{X: math.Sqrt(float64(b.From) * float64(b.To)), Y: b.KL})
			line.YErrors = append(line.YErrors, struct{ Low, High float64 }{min(b.KLError, 0.9*b.KL), b.KLError})
			low, high = min(low, b.KL-min(b.KLError, 0.9*b.KL)), max(high, b.KL+b.KLError)
		}
		if len(line.XYs) == 0 {
			continue
		}
		l, marks, err := plotter.NewLinePoints(line.XYs)
		if err != nil {
			return nil, err
		}
		bars, err := plotter.NewYErrorBars(line)
		if err != nil {
			return nil, err
		}
		l.Color, l.Width, marks.Shape = color.Gray{0x60}, 1.5, draw.BoxGlyph{}
		if c.name == tutorialName {
			l.Dashes = []vg.Length{5, 3}
		} else {
			l.Color, marks.Shape = lineColors[drawn%len(lineColors)], lineMarks[drawn%len(lineMarks)]
			drawn++
		}
		marks.Color, marks.Radius, bars.Color = l.Color, 3.5, l.Color
		p.Add(l, marks, bars)
		p.Legend.Add(c.name, l, marks)
	}
	if len(edges) == 0 {
		return nil, nil
	}
	ticks := plot.ConstantTicks{}
	p.X.Min, p.X.Max = math.Inf(1), 0
	for n := range edges {
		ticks = append(ticks, plot.Tick{Value: float64(n), Label: strconv.Itoa(n)})
		p.X.Min, p.X.Max = min(p.X.Min, float64(n)), max(p.X.Max, float64(n))
	}
	p.X.Max *= 2.2 // room for the legend
	p.X.Tick.Marker = ticks
	p.Y.Min, p.Y.Max = math.Pow(10, math.Floor(math.Log10(low))), math.Pow(10, math.Ceil(math.Log10(high)))
	p.Legend.Top = true
	return plots.SVG(p, wide, 400)
}
