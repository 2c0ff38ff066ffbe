package bench

import (
	"image/color"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Line is one line of a plot. A limit is drawn dashed, in the colour of the line before it. Lines
// also differ in their marks, and limits in their dashes, for those who see no colours.
type Line struct {
	Name  string
	X, Y  []float64
	Limit bool
}

// Plot draws lines over linear axes from 0, as an SVG file. Labels carry units.
func Plot(title, x, y string, lines ...Line) ([]byte, error) {
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = title, x, y
	p.BackgroundColor = color.White
	p.Legend.Top, p.Legend.Left = true, true
	Sans(p, 10)
	grid := plotter.NewGrid()
	grid.Vertical.Color, grid.Horizontal.Color = color.Gray{0xe0}, color.Gray{0xe0}
	p.Add(grid)
	colors := []color.Color{color.RGBA{0x1f, 0x80, 0x79, 0xff}, color.RGBA{0xe8, 0x8a, 0x1c, 0xff}, color.RGBA{0x3b, 0x6f, 0xb0, 0xff}}
	marks := []draw.GlyphDrawer{draw.CircleGlyph{}, draw.BoxGlyph{}, draw.PyramidGlyph{}}
	dashes := [][]vg.Length{{6, 3}, {1.5, 3}, {6, 3, 1.5, 3}}
	next := -1
	for _, one := range lines {
		points := make(plotter.XYs, len(one.X))
		for i := range points {
			points[i].X, points[i].Y = one.X[i], one.Y[i]
		}
		line, err := plotter.NewLine(points)
		if err != nil {
			return nil, err
		}
		if !one.Limit {
			next++
		}
		own := max(0, next) % len(colors)
		line.LineStyle = draw.LineStyle{Color: colors[own], Width: 1.5}
		legend := []plot.Thumbnailer{line}
		if one.Limit {
			line.Dashes = dashes[own]
		} else {
			dots, err := plotter.NewScatter(points)
			if err != nil {
				return nil, err
			}
			dots.GlyphStyle = draw.GlyphStyle{Color: line.Color, Radius: 3, Shape: marks[own]}
			p.Add(dots)
			legend = append(legend, dots)
		}
		p.Add(line)
		p.Legend.Add(one.Name, legend...)
	}
	p.X.Min, p.Y.Min = 0, 0
	p.Y.Max *= 1.1
	return SVG(p, 560, 320)
}
