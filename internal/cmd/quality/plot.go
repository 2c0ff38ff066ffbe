package main

import (
	"image/color"
	"math"
	"slices"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	plots "github.com/kvqbook/kvqbook/internal/bench"
	"github.com/kvqbook/kvqbook/kvq"
)

// few are the caches of the picture that README shows.
func few(name string) bool {
	return name == tutorialName || name == "quanto 2 bit" || slices.Contains(kvq.Presets(), name)
}

// picture draws the divergence of caches against their bits, with the tutorial's as the line to be
// below: of all caches, or of those that shown wants, with larger names. nil where there is too
// little.
func (g run) picture(set string, shown func(name string) bool) ([]byte, error) {
	var own, theirs points
	tutorial := means{}
	for _, s := range makeSteps() {
		r, ok := g.find(job{step: s})
		m := mean(r.Scores, set)
		if !ok || m.tokens == 0 || !(m.kl > 0) || shown != nil && !shown(s.name) {
			continue
		}
		if s.name == tutorialName {
			tutorial = m
		}
		list := &own
		if s.config.Backend != kvq.Blocks {
			list = &theirs
		}
		list.add(r.Bits, m.kl, s.name)
	}
	if len(own.xy)+len(theirs.xy) < 2 {
		return nil, nil
	}
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = "Cost of a cache: "+titles[set], "bits a value", "KL divergence, nats (log)"
	p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, plot.LogTicks{}
	most, letters, radius, above := 10, vg.Length(7), vg.Length(3), vg.Length(-2) // room for names
	if shown != nil {
		most, letters, radius, above = 8, 10, 4, 3
		p.Title.Text = "Bits against quality: texts that nobody tuned on, SmolLM2-135M"
	}
	p.X.Min, p.X.Max = 2, float64(most)
	var ticks plot.ConstantTicks
	for _, bits := range []int{2, 3, 4, 5, 6, 8, 10} {
		if bits > most {
			break
		}
		ticks = append(ticks, plot.Tick{Value: float64(bits), Label: strconv.Itoa(bits)})
	}
	p.X.Tick.Marker = ticks
	plots.Sans(p, 10)
	p.Legend.Top, p.Legend.XOffs = true, -8
	if tutorial.tokens > 0 {
		line := plotter.NewFunction(func(float64) float64 { return tutorial.kl })
		line.Color, line.Dashes = color.Gray{0x80}, []vg.Length{5, 3}
		p.Add(line)
		p.Legend.Add("the tutorial's cache", line)
	}
	if shown == nil {
		apart(&own, &theirs)
	}
	for _, l := range []struct {
		points
		name  string
		color color.Color
		shape draw.GlyphDrawer
	}{{theirs, "transformers' backends", color.RGBA{0xe8, 0x8a, 0x1c, 0xff}, draw.BoxGlyph{}}, {own, "ours", color.RGBA{0x1f, 0x80, 0x79, 0xff}, draw.CircleGlyph{}}} {
		if len(l.xy) == 0 {
			continue
		}
		dots, err := plotter.NewScatter(l.xy)
		if err != nil {
			return nil, err
		}
		dots.GlyphStyle = draw.GlyphStyle{Color: l.color, Radius: radius, Shape: l.shape}
		names, err := plotter.NewLabels(plotter.XYLabels{XYs: l.xy, Labels: l.labels})
		if err != nil {
			return nil, err
		}
		for i := range names.TextStyle {
			names.TextStyle[i].Font.Variant, names.TextStyle[i].Font.Size = "Sans", letters
		}
		names.Offset = vg.Point{X: radius + 2, Y: above}
		p.Add(dots, names)
		p.Legend.Add(l.name, dots)
	}
	p.Y.Min, p.Y.Max = math.Pow(10, math.Floor(math.Log10(p.Y.Min))), math.Pow(10, math.Ceil(math.Log10(p.Y.Max)))
	return plots.SVG(p, 620, 420)
}

// apart takes away the names that would lie over others. Presets and the tutorial's cache keep
// theirs. Names are as long as their letters and as high as a line, in the units of the axes.
func apart(lists ...*points) {
	const letter, line = 0.056, 0.14 // bits; powers of ten
	type place struct {
		at     plotter.XY
		length float64
	}
	var taken []place
	named := append(kvq.Presets(), tutorialName)
	for _, first := range []bool{true, false} {
		for _, l := range lists {
			for i, at := range l.xy {
				if slices.Contains(named, l.labels[i]) != first {
					continue
				}
				own := place{plotter.XY{X: at.X, Y: math.Log10(at.Y)}, letter * float64(len(l.labels[i])+2)}
				if slices.ContainsFunc(taken, func(other place) bool {
					return math.Abs(own.at.Y-other.at.Y) < line && own.at.X < other.at.X+other.length && other.at.X < own.at.X+own.length
				}) {
					l.labels[i] = ""
					continue
				}
				taken = append(taken, own)
			}
		}
	}
}

// points are places with names.
type points struct {
	xy     plotter.XYs
	labels []string
}

func (p *points) add(x, y float64, name string) {
	p.xy, p.labels = append(p.xy, plotter.XY{X: x, Y: y}), append(p.labels, name)
}
