package bench

import (
	"bytes"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// Sans sets all of a plot's letters in a font without serifs, of so many points.
func Sans(p *plot.Plot, size vg.Length) {
	for _, f := range []*font.Font{&p.Title.TextStyle.Font, &p.X.Label.TextStyle.Font, &p.Y.Label.TextStyle.Font,
		&p.X.Tick.Label.Font, &p.Y.Tick.Label.Font, &p.Legend.TextStyle.Font} {
		f.Variant, f.Size = "Sans", size
	}
	p.Legend.Padding, p.Legend.ThumbnailWidth = 3, 36
}

// SVG draws a plot of so many points as an SVG file, with room for the outermost numbers, which
// reach over the axes.
//
// gonum names the font that it measured with. Few machines have it, and a browser would take one
// with serifs; Arial has the same widths.
func SVG(p *plot.Plot, width, height vg.Length) ([]byte, error) {
	canvas := vgsvg.New(width, height)
	p.Draw(draw.Crop(draw.New(canvas), 4, -14, 4, -4))
	var b bytes.Buffer
	_, err := canvas.WriteTo(&b)
	return bytes.ReplaceAll(b.Bytes(), []byte("font-family:Liberation Sans;"), []byte("font-family:Arial, Helvetica, sans-serif;")), err
}
