package main

import (
	"bytes"
	"image/color"
	"math"
	"slices"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"

	"github.com/kvqbook/kvqbook/kvq"
)

// picture draws the divergence of every cache against its bits, with the tutorial's as the line to
// be below. nil where there is too little.
func (g run) picture(set string) ([]byte, error) {
	var own, theirs points
	tutorial := means{}
	for _, s := range makeSteps() {
		r, ok := g.find(job{step: s})
		m := mean(r.Scores, set)
		if !ok || m.tokens == 0 || !(m.kl > 0) {
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
	p.X.Min, p.X.Max = 2, 10 // room for names
	var ticks plot.ConstantTicks
	for _, bits := range []int{2, 3, 4, 5, 6, 8, 10} {
		ticks = append(ticks, plot.Tick{Value: float64(bits), Label: strconv.Itoa(bits)})
	}
	p.X.Tick.Marker = ticks
	sans := func(f *font.Font, size vg.Length) { f.Variant, f.Size = "Sans", size }
	for _, f := range []*font.Font{&p.Title.TextStyle.Font, &p.X.Label.TextStyle.Font, &p.Y.Label.TextStyle.Font, &p.X.Tick.Label.Font, &p.Y.Tick.Label.Font, &p.Legend.TextStyle.Font} {
		sans(f, 10)
	}
	p.Legend.Top, p.Legend.XOffs = true, -8
	if tutorial.tokens > 0 {
		line := plotter.NewFunction(func(float64) float64 { return tutorial.kl })
		line.Color, line.Dashes = color.Gray{0x80}, []vg.Length{5, 3}
		p.Add(line)
		p.Legend.Add("the tutorial's cache", line)
	}
	apart(&own, &theirs)
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
		dots.GlyphStyle = draw.GlyphStyle{Color: l.color, Radius: 3, Shape: l.shape}
		names, err := plotter.NewLabels(plotter.XYLabels{XYs: l.xy, Labels: l.labels})
		if err != nil {
			return nil, err
		}
		for i := range names.TextStyle {
			sans(&names.TextStyle[i].Font, 7)
		}
		names.Offset = vg.Point{X: 4, Y: -2}
		p.Add(dots, names)
		p.Legend.Add(l.name, dots)
	}
	p.Y.Min, p.Y.Max = math.Pow(10, math.Floor(math.Log10(p.Y.Min))), math.Pow(10, math.Ceil(math.Log10(p.Y.Max)))
	canvas := vgsvg.New(620, 420)
	p.Draw(draw.New(canvas))
	var b bytes.Buffer
	_, err := canvas.WriteTo(&b)
	return b.Bytes(), err
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
