package nb

import (
	"bytes"
	"fmt"
	"image/color"
	"math"

	"github.com/janpfeifer/gonb/gonbui"
	"github.com/janpfeifer/gonb/gonbui/protocol"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"

	xfont "golang.org/x/image/font"
)

// dpi makes pictures of about a thousand pixels' width, sharp enough beside text.
const dpi = 120

// Colours that mean the same in every picture. Told apart in grey too, since each differs in
// lightness.
var (
	ink       = color.RGBA{0x22, 0x2b, 0x35, 0xff}
	faint     = color.RGBA{0x8a, 0x94, 0x9e, 0xff}
	paper     = color.RGBA{0xff, 0xff, 0xff, 0xff}
	panel     = color.RGBA{0xf3, 0xf5, 0xf7, 0xff}
	keyColor  = color.RGBA{0x3b, 0x6f, 0xb0, 0xff}
	valColor  = color.RGBA{0xe8, 0x8a, 0x1c, 0xff}
	newColor  = color.RGBA{0xc0, 0x2f, 0x4b, 0xff}
	codeColor = color.RGBA{0x1f, 0x80, 0x79, 0xff}
	holdColor = color.RGBA{0xf0, 0xc3, 0x4a, 0xff}
)

// Picture is a finished drawing, as a PNG file.
type Picture []byte

// Show puts the picture into the cell's output. alt says in words what it shows, for who cannot see
// it.
func (p Picture) Show(alt string) {
	if !gonbui.IsNotebook {
		fmt.Printf("(a picture: %s)\n", alt)
		return
	}
	gonbui.SendData(&protocol.DisplayData{
		Data:     map[protocol.MIMEType]any{protocol.MIMEImagePNG: []byte(p), protocol.MIMETextPlain: alt},
		Metadata: map[string]any{"image/png": map[string]string{"alt": alt}},
	})
	flush()
}

// flush waits until the notebook has what was sent: a program that ends right after sending may
// take it along.
func flush() {
	gonbui.Sync()
	Check(gonbui.Error())
}

// sketch is a drawing under way; lengths are points, y grows upward.
type sketch struct {
	canvas *vgimg.Canvas
	draw.Canvas
}

func newSketch(width, height float64) *sketch {
	c := vgimg.NewWith(vgimg.UseWH(vg.Length(width), vg.Length(height)), vgimg.UseDPI(dpi), vgimg.UseBackgroundColor(paper))
	return &sketch{c, draw.New(c)}
}

func (s *sketch) picture() Picture {
	var b bytes.Buffer
	_, err := vgimg.PngCanvas{Canvas: s.canvas}.WriteTo(&b)
	Check(err)
	return b.Bytes()
}

func point(x, y float64) vg.Point { return vg.Point{X: vg.Length(x), Y: vg.Length(y)} }

func corners(x, y, w, h float64) []vg.Point {
	return []vg.Point{point(x, y), point(x+w, y), point(x+w, y+h), point(x, y+h)}
}

// box fills a rectangle.
func (s *sketch) box(x, y, w, h float64, fill color.Color) { s.FillPolygon(fill, corners(x, y, w, h)) }

// frame outlines a rectangle.
func (s *sketch) frame(x, y, w, h, width float64, line color.Color, dashes ...vg.Length) {
	c := corners(x, y, w, h)
	s.StrokeLines(draw.LineStyle{Color: line, Width: vg.Length(width), Dashes: dashes}, append(c, c[0], c[1]))
}

func (s *sketch) line(x1, y1, x2, y2, width float64, c color.Color) {
	s.StrokeLine2(draw.LineStyle{Color: c, Width: vg.Length(width)}, vg.Length(x1), vg.Length(y1), vg.Length(x2), vg.Length(y2))
}

// arrow draws a line that ends in a head at (x2, y2).
func (s *sketch) arrow(x1, y1, x2, y2, width float64, c color.Color) {
	const head = 5
	dx, dy := x2-x1, y2-y1
	n := math.Hypot(dx, dy)
	dx, dy = dx/n*head, dy/n*head
	s.line(x1, y1, x2-dx, y2-dy, width, c)
	s.FillPolygon(c, []vg.Point{point(x2, y2), point(x2-dx-dy/2, y2-dy+dx/2), point(x2-dx+dy/2, y2-dy-dx/2)})
}

// style of a text: size in points, and how it stands to the point that it is drawn at.
type style struct {
	size  float64
	color color.Color
	bold  bool
	align float64 // 0: the text begins at the point, -0.5: it is centred on it, -1: it ends there
}

// text draws one line, centred on y.
func (s *sketch) text(x, y float64, st style, words string) {
	f := font.Font{Typeface: "Liberation", Variant: "Sans", Size: vg.Length(st.size)}
	if st.bold {
		f.Weight = xfont.WeightBold
	}
	if st.color == nil {
		st.color = ink
	}
	s.FillText(text.Style{Color: st.color, Font: f, XAlign: text.XAlignment(st.align), YAlign: text.YCenter,
		Handler: plot.DefaultTextHandler}, point(x, y), words)
}
