package nb

import (
	"fmt"
	"image/color"
)

// Reuse draws what a model computes for token n+1 of a text, without a KV cache and with one: one
// layer, one head.
func Reuse(n int) Picture {
	const width, height = 700, 400
	s := newSketch(width, height)
	labels := []string{"1", "2", "3", "…", fmt.Sprint(n - 1), fmt.Sprint(n), fmt.Sprint(n + 1)}
	s.reusePanel(206, "Without a cache", labels, false)
	s.reusePanel(14, "With a KV cache", labels, true)
	return s.picture()
}

// reusePanel draws one of the two rows of tokens with its bottom at y.
func (s *sketch) reusePanel(y float64, title string, labels []string, cached bool) {
	const left, column, box, high = 62, 58, 40, 22
	s.box(8, y, 684, 182, panel)
	s.text(20, y+166, style{size: 13, bold: true}, title)
	s.text(20, y+137, style{size: 10, color: faint}, "token")
	s.text(20, y+100, style{size: 10, color: keyColor, bold: true}, "key")
	s.text(20, y+70, style{size: 10, color: valColor, bold: true}, "value")
	last := len(labels) - 1
	if cached {
		s.box(left-6, y+54, float64(last)*column-6, 62, paper)
		s.frame(left-6, y+54, float64(last)*column-6, 62, 1.2, codeColor)
		s.text(left, y+44, style{size: 9.5, color: codeColor}, "the cache: made once, when each token came, and read again now")
	}
	for i, label := range labels {
		x := left + float64(i)*column
		if label == "…" {
			for _, dy := range []float64{137, 100, 70} {
				s.text(x+box/2, y+dy, style{size: 12, color: faint, align: -0.5}, "…")
			}
			continue
		}
		s.text(x+box/2, y+137, style{size: 11, bold: i == last, align: -0.5}, label)
		fresh := !cached || i == last
		s.vector(x, y+89, box, high, keyColor, fresh)
		s.vector(x, y+59, box, high, valColor, fresh)
	}
	// The newest token asks: its query meets every key, and weighs every value.
	x := left + float64(last)*column + box/2
	s.vector(x+62, y+121, box, high, newColor, true)
	s.text(x+82, y+154, style{size: 10, color: newColor, bold: true, align: -0.5}, "query "+labels[last])
	soft := color.RGBA{0xd8, 0x83, 0x94, 0xff}
	s.line(left+box/2, y+121, x+60, y+121, 0.8, soft)
	for i, label := range labels {
		if label != "…" {
			at := left + float64(i)*column + box/2
			s.arrow(at, y+121, at, y+113, 0.8, soft)
		}
	}
	s.arrow(x+26, y+70, x+78, y+70, 1.2, ink)
	s.text(x+84, y+76, style{size: 10}, "output: values,")
	s.text(x+84, y+64, style{size: 10}, "weighed by query · key")
	computed, read := fmt.Sprintf("computed now: 1 query, %s keys, %s values", labels[last], labels[last]), "reused: nothing"
	if cached {
		computed = "computed now: 1 query, 1 key, 1 value (both join the cache)"
		read = fmt.Sprintf("reused: %s keys, %s values", labels[last-1], labels[last-1])
	}
	s.text(20, y+20, style{size: 11, color: newColor, bold: true}, computed)
	s.text(430, y+20, style{size: 11, color: codeColor, bold: true}, read)
}

// vector is a key or value: a bar of a few numbers, outlined in red where it is computed now.
func (s *sketch) vector(x, y, w, h float64, c color.Color, fresh bool) {
	const cells = 5
	for i := range cells {
		r := c.(color.RGBA)
		shade := []float64{0.45, 0.9, 0.65, 1, 0.55}[i]
		mix := func(v uint8) uint8 { return uint8(255 - shade*(255-float64(v))) }
		s.box(x+float64(i)*w/cells, y, w/cells-0.6, h, color.RGBA{mix(r.R), mix(r.G), mix(r.B), 0xff})
	}
	if fresh {
		s.frame(x-1.5, y-1.5, w+2.4, h+3, 1.8, newColor)
	}
}
