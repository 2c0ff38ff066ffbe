package nb

import (
	"fmt"
	"image/color"
	"math"
)

// Heat is a table of numbers drawn as colours, the first row at the top. What is far from 0 is
// dark: blue above, orange below. A NaN is left empty.
type Heat struct {
	Title string
	Rows  [][]float64
	// X and Y say what runs along the axes. XNames and YNames name every column and row; without
	// them the axes are numbered.
	X, Y           string
	XNames, YNames []string
	// Max is the number of the darkest colour; 0: the largest there is.
	Max float64
	// Pale is how dark a number near 0 is, so that it is told from a NaN: 0, white, to 1.
	Pale float64
	// Numbers writes every number into its cell.
	Numbers bool
}

// Heats draws tables side by side, each with the number of its darkest colour.
func Heats(tables ...Heat) Picture {
	const left, wide, high, bottom, top, apart = 74.0, 270.0, 230.0, 46.0, 52.0, 66.0
	panel := wide
	if len(tables) == 1 {
		panel = 480
	}
	s := newSketch(left+float64(len(tables))*(panel+apart)-apart+24, bottom+high+top)
	for i, t := range tables {
		s.heat(t, left+float64(i)*(panel+apart), bottom, panel, high)
	}
	return s.picture()
}

func (s *sketch) heat(t Heat, x, y, w, h float64) {
	rows, columns := len(t.Rows), len(t.Rows[0])
	cw, ch := w/float64(columns), h/float64(rows)
	top := t.max()
	for r, row := range t.Rows {
		for c, v := range row {
			if math.IsNaN(v) {
				continue
			}
			cx, cy := x+float64(c)*cw, y+h-float64(r+1)*ch
			shade := math.Max(-1, math.Min(1, v/top))
			s.box(cx, cy, cw+0.2, ch+0.2, diverging(t.darker(shade)))
			if t.Numbers {
				st := style{size: 10, align: -0.5}
				if math.Abs(shade) > 0.6 {
					st.color = paper
				}
				s.text(cx+cw/2, cy+ch/2, st, fmt.Sprintf("%.2f", v))
			}
		}
	}
	s.frame(x, y, w, h, 0.6, faint)
	s.text(x, y+h+36, style{size: 12.5, bold: true}, t.Title)
	s.heatScale(t, top, x, y+h+10)
	s.text(x+w/2, y-36, style{size: 10, align: -0.5}, t.X)
	for c := range columns {
		if name := label(t.XNames, c, columns); name != "" {
			s.text(x+(float64(c)+0.5)*cw, y-14, style{size: 9.5, align: -0.5}, name)
		}
	}
	for r := range rows {
		if name := label(t.YNames, r, rows); name != "" {
			s.text(x-6, y+h-(float64(r)+0.5)*ch, style{size: 9.5, align: -1}, name)
		}
	}
	if t.YNames == nil {
		s.text(x-6, y+h+8, style{size: 10, align: -1}, t.Y)
	}
}

// heatScale draws what the colours stand for.
func (s *sketch) heatScale(t Heat, top, x, y float64) {
	const steps, cell = 24, 3.2
	from := 0
	if t.negative() {
		from = -steps
	}
	low := fmt.Sprintf("%.3g", top*float64(from)/steps)
	s.text(x, y+4, style{size: 9.5}, low)
	at := x + 6 + 5.4*float64(len(low))
	for i := from; i <= steps; i++ {
		s.box(at, y, cell+0.2, 8, diverging(t.darker(float64(i)/steps)))
		at += cell
	}
	s.text(at+5, y+4, style{size: 9.5}, fmt.Sprintf("%.3g", top))
}

// label is the name of a column or row: its own, or every so many a number.
func label(names []string, i, n int) string {
	if names != nil {
		return names[i]
	}
	step := 1
	for n/step > 8 {
		step *= 2
	}
	if i%step == 0 {
		return fmt.Sprint(i)
	}
	return ""
}

func (t Heat) max() float64 {
	if t.Max > 0 {
		return t.Max
	}
	top := 0.0
	for _, row := range t.Rows {
		for _, v := range row {
			if !math.IsNaN(v) {
				top = max(top, math.Abs(v))
			}
		}
	}
	if top == 0 {
		return 1
	}
	return top
}

// darker is a shade, from -1 to 1, that is nowhere paler than Pale.
func (t Heat) darker(shade float64) float64 {
	return math.Copysign(t.Pale+(1-t.Pale)*math.Abs(shade), shade)
}

func (t Heat) negative() bool {
	for _, row := range t.Rows {
		for _, v := range row {
			if v < 0 {
				return true
			}
		}
	}
	return false
}

// diverging is the colour of v, from -1 to 1: blue above 0, orange below, white between. The two
// are told apart without red and green.
func diverging(v float64) color.Color {
	to := color.RGBA{0x0f, 0x4c, 0x92, 0xff}
	if v < 0 {
		v, to = -v, color.RGBA{0xb4, 0x53, 0x09, 0xff}
	}
	mix := func(c uint8) uint8 { return uint8(255 - v*(255-float64(c))) }
	return color.RGBA{mix(to.R), mix(to.G), mix(to.B), 0xff}
}
