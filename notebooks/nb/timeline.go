package nb

import "fmt"

// Timeline draws how many tokens caches hold as codes and in full precision, moment by moment: a
// panel for each run, with its title.
func Timeline(titles []string, runs ...[]Moment) Picture {
	const left, high, bottom, top, apart = 56.0, 170.0, 56.0, 44.0, 60.0
	wide := (1000 - left - 24 - apart*float64(len(runs)-1)) / float64(len(runs))
	s := newSketch(1000, bottom+high+top)
	for i, moments := range runs {
		x := left + float64(i)*(wide+apart)
		last := moments[len(moments)-1]
		most := float64(last.Coded + last.Exact)
		cell := wide / float64(len(moments))
		for j, m := range moments { // a little wider than a cell, so that no seams are seen
			coded, exact := float64(m.Coded)/most*high, float64(m.Exact)/most*high
			at := x + float64(j)*cell
			s.box(at, bottom, cell+0.7, coded, codeColor)
			s.box(at, bottom+coded, cell+0.7, exact, holdColor)
		}
		s.line(x, bottom, x+wide, bottom, 0.8, ink)
		s.line(x, bottom, x, bottom+high, 0.8, ink)
		s.text(x, bottom+high+26, style{size: 12.5, bold: true}, titles[i])
		s.text(x-6, bottom, style{size: 9.5, align: -1}, "0")
		s.text(x-6, bottom+high, style{size: 9.5, align: -1}, fmt.Sprint(int(most)))
		s.text(x, bottom-12, style{size: 9.5}, "after the prompt")
		s.text(x+wide, bottom-12, style{size: 9.5, align: -1}, fmt.Sprintf("after %d new tokens", last.New))
		s.text(x+8, bottom+high-4, style{size: 9.5, color: faint}, "tokens of one row")
	}
	s.box(left, 12, 11, 11, codeColor)
	s.text(left+16, 17.5, style{size: 10.5}, "tokens in codes")
	s.box(left+140, 12, 11, 11, holdColor)
	s.text(left+156, 17.5, style{size: 10.5}, "tokens in full precision")
	return s.picture()
}
