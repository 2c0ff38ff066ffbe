package main

import (
	"image/color"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

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

// named tells whether the picture says the name of a cache: of all, where there are few, else of
// the tutorial's and the presets alone.
func named(name string, all bool) bool {
	return all || name == tutorialName || slices.Contains(kvq.Presets(), name)
}

// picture draws the divergence of caches against their bits, with the tutorial's as the line to be
// below: of all caches, or of those that shown wants. nil where there is too little.
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
	p.Title.Text = "Bits against quality: texts that nobody tuned on, " + strings.TrimSuffix(g.base.Model, filepath.Ext(g.base.Model))
	if set != setUnseen {
		p.Title.Text = "Bits against quality: " + titles[set]
	}
	p.X.Label.Text, p.Y.Label.Text = "bits a value", "KL divergence, nats (log)"
	p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, decades{}
	bits := plot.ConstantTicks{}
	for _, n := range []int{2, 3, 4, 5, 6, 8} {
		bits = append(bits, plot.Tick{Value: float64(n), Label: strconv.Itoa(n)})
	}
	p.X.Min, p.X.Max, p.X.Tick.Marker = 2, 8.6, bits
	plots.Sans(p, 10)
	// Marks on the left of their names, at the right edge: a font with wider letters than these
	// moves nothing over anything.
	p.Legend.Top, p.Legend.Left, p.Legend.XOffs = true, true, 350
	if tutorial.tokens > 0 {
		line := plotter.NewFunction(func(float64) float64 { return tutorial.kl })
		line.Color, line.Dashes = color.Gray{0x80}, []vg.Length{5, 3}
		p.Add(line)
		p.Legend.Add("the tutorial's cache", line)
	}
	p.Y.Min, p.Y.Max = math.Inf(1), math.Inf(-1)
	var dots []place
	for _, l := range []points{own, theirs} {
		for _, at := range l.xy {
			dots = append(dots, place{at, 0})
			p.Y.Min, p.Y.Max = min(p.Y.Min, at.Y), max(p.Y.Max, at.Y)
		}
	}
	p.Y.Min, p.Y.Max = math.Pow(10, math.Floor(math.Log10(p.Y.Min))), math.Pow(10, math.Ceil(math.Log10(p.Y.Max)))
	for _, l := range []struct {
		points
		name   string
		others string // those without a name in the picture
		color  color.Color
		shape  draw.GlyphDrawer
		other  draw.GlyphDrawer
	}{
		{theirs, "transformers' backends", "the same, other settings", color.RGBA{0xe8, 0x8a, 0x1c, 0xff}, draw.BoxGlyph{}, draw.SquareGlyph{}},
		{own, "ours: the presets", "ours: other settings", color.RGBA{0x1f, 0x80, 0x79, 0xff}, draw.CircleGlyph{}, draw.RingGlyph{}},
	} {
		var big, small plotter.XYs
		for i, at := range l.xy {
			if !named(l.labels[i], shown != nil) {
				small = append(small, at)
				continue
			}
			big = append(big, at)
			name, err := nameBeside(at, l.labels[i], tutorial.kl, &dots, p.Y.Max/p.Y.Min)
			if err != nil {
				return nil, err
			}
			p.Add(name)
		}
		if len(big) > 0 {
			marks, err := plotter.NewScatter(big)
			if err != nil {
				return nil, err
			}
			marks.GlyphStyle = draw.GlyphStyle{Color: l.color, Radius: 4, Shape: l.shape}
			p.Add(marks)
			p.Legend.Add(l.name, marks)
		}
		if len(small) > 0 {
			marks, err := plotter.NewScatter(small)
			if err != nil {
				return nil, err
			}
			marks.GlyphStyle = draw.GlyphStyle{Color: l.color, Radius: 2.5, Shape: l.other}
			p.Add(marks)
			p.Legend.Add(l.others, marks)
		}
	}
	return plots.SVG(p, wide, high)
}

// Sizes of a picture and its names, in points.
const wide, high, letters = 620, 420, 10

// decades are the powers of ten, written out, with the lines between them.
type decades struct{}

func (decades) Ticks(low, high float64) []plot.Tick {
	ticks := plot.LogTicks{Prec: -1}.Ticks(low, high)
	for i, t := range ticks {
		if t.Label != "" {
			ticks[i].Label = strconv.FormatFloat(t.Value, 'f', -1, 64)
		}
	}
	return ticks
}

// place is what a dot or a name takes up: from a point to the right, in the units of the axes.
type place struct {
	at     plotter.XY
	length float64 // bits
}

// nameBeside puts a name where it lies over no dot, no other name and not over the line: above its
// dot or below it, on its right or on its left. What it takes is added to taken; span is how many
// times the axis of divergences grows.
func nameBeside(at plotter.XY, name string, line float64, taken *[]place, span float64) (*plotter.Labels, error) {
	const letter = 0.075 // bits
	height := letters * 1.3 / (high - 90) * math.Log10(span)
	length := letter * float64(len(name)+2)
	overlaps := func(p place) bool {
		y := math.Log10(p.at.Y)
		return math.Abs(y-math.Log10(line)) < height/2 || slices.ContainsFunc(*taken, func(other place) bool {
			return other.at != at && math.Abs(y-math.Log10(other.at.Y)) < height*0.8 && p.at.X < other.at.X+other.length+0.1 && other.at.X < p.at.X+p.length
		})
	}
	var best place
	var offset vg.Point
	align := draw.XLeft
	for _, try := range []struct {
		right bool
		above float64
	}{{true, 0.6}, {true, -0.6}, {false, 0.6}, {false, -0.6}, {true, 1.1}, {true, -1.1}} {
		p := place{plotter.XY{X: at.X + 0.08, Y: at.Y * math.Pow(10, try.above*height)}, length}
		o, a := vg.Point{X: 6, Y: vg.Length(try.above * letters * 1.3)}, draw.XLeft
		if !try.right {
			p.at.X, o.X, a = at.X-0.08-length, -6, draw.XRight
		}
		if best == (place{}) || !overlaps(p) {
			best, offset, align = p, o, a
		}
		if !overlaps(p) {
			break
		}
	}
	*taken = append(*taken, best)
	l, err := plotter.NewLabels(plotter.XYLabels{XYs: plotter.XYs{at}, Labels: []string{name}})
	if err != nil {
		return nil, err
	}
	l.Offset = offset
	l.TextStyle[0].Font.Variant, l.TextStyle[0].Font.Size = "Sans", letters
	l.TextStyle[0].XAlign, l.TextStyle[0].YAlign = align, draw.YCenter
	return l, nil
}

// points are places with names.
type points struct {
	xy     plotter.XYs
	labels []string
}

func (p *points) add(x, y float64, name string) {
	p.xy, p.labels = append(p.xy, plotter.XY{X: x, Y: y}), append(p.labels, name)
}
