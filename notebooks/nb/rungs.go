package nb

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/janpfeifer/gonb/gonbui"
	"github.com/janpfeifer/gonb/gonbui/widgets"
)

// Rung is one width of codes, and what came of it.
type Rung struct {
	Bits      int     // of a code
	PerValue  float64 // bits a value, with scales and zero points
	Bytes     int64   // of the cache for each token
	KL        float64 // mean, from full precision, in nats
	Agreement float64
	Text      string // what the model writes
	Same      string // as far as it is what it writes in full precision
}

func (r Rung) figures() string {
	return fmt.Sprintf("%s a token, KL %.4f, the same token most likely in %.0f %%", Bytes(r.Bytes), r.KL, 100*r.Agreement)
}

func (r Rung) html() string {
	rest, shared := strings.CutPrefix(r.Text, r.Same)
	text := escaped(r.Text)
	if shared && rest != "" {
		text = escaped(r.Same) + "<mark>" + PartMark + "</mark><b>" + escaped(rest) + "</b>"
	}
	return fmt.Sprintf(`<p class="rung"><b>%d bits</b>: %s</p><p>… %s</p>`, r.Bits, r.figures(), text)
}

// Ladder draws all rungs in one picture, a row each: what a slider shows one after the other.
func Ladder(rungs ...Rung) Picture {
	const wide, letters, row = 700.0, 104, 62.0
	s := newSketch(wide, 20+row*float64(len(rungs)))
	for i, r := range rungs {
		top := 10 + row*float64(len(rungs)-i)
		s.box(8, top-row+6, wide-16, row-6, panel)
		s.text(20, top-16, style{size: 12, bold: true}, fmt.Sprintf("%d bits", r.Bits))
		s.text(80, top-16, style{size: 10.5, color: codeColor}, r.figures())
		// the font has another triangle than pages do
		for j, line := range wrapped("… "+strings.Replace(marked(r), PartMark, "►", 1), letters, 2) {
			s.text(20, top-32-13*float64(j), style{size: 10}, line)
		}
	}
	return s.picture()
}

// marked is the text in one line, with the mark where it parts from full precision.
func marked(r Rung) string {
	text := r.Text
	if rest, shared := strings.CutPrefix(r.Text, r.Same); shared && rest != "" {
		text = r.Same + " " + PartMark + " " + rest
	}
	return strings.Join(strings.Fields(text), " ")
}

// wrapped cuts a text into lines of at most so many characters, at spaces where there are any, and
// ends with … where more lines would come.
func wrapped(text string, letters, lines int) (out []string) {
	for rest := []rune(text); len(rest) > 0; {
		n := min(letters, len(rest))
		if len(rest) > n {
			if space := strings.LastIndexByte(string(rest[:n+1]), ' '); space > 0 {
				n = len([]rune(string(rest[:n+1])[:space]))
			}
		}
		out = append(out, string(rest[:n]))
		rest = []rune(strings.TrimLeft(string(rest[n:]), " "))
		if len(out) == lines && len(rest) > 0 {
			out[lines-1] += " …"
			return out
		}
	}
	return out
}

// Times of a slider: how long a browser may take to answer, and after how long without a movement
// the cell ends.
const (
	sliderAnswers = 3 * time.Second
	sliderRests   = 15 * time.Second
)

// Slide shows one rung, and a slider that chooses it, for as long as it is moved: the cell ends 15
// seconds after the last movement. Values come through GoNB's comms. Where no browser answers it
// ends after some seconds. KVQ_BROWSER=none, which run.py sets, says that there is none: nothing of
// the slider is in the output then.
func Slide(rungs ...Rung) {
	if !gonbui.IsNotebook || os.Getenv("KVQ_BROWSER") == "none" || len(rungs) == 0 {
		return
	}
	place, shown := "slide-"+gonbui.UniqueID(), "slide-"+gonbui.UniqueID()
	gonbui.UpdateHTML(place, fmt.Sprintf(`<label id="%s-slider" class="kvq-slider">bits of a code, %d to %d: </label>`, place, rungs[0].Bits, rungs[len(rungs)-1].Bits))
	slider := widgets.Slider(0, len(rungs)-1, 0).AppendTo(place + "-slider").WithHtmlId(place + "-input")
	ready := make(chan struct{})
	go func() {
		slider.Done() // waits for a browser
		close(ready)
	}()
	select {
	case <-ready:
		follow(slider, func(i int) { gonbui.UpdateHTML(shown, rungs[min(max(i, 0), len(rungs)-1)].html()) })
		gonbui.UpdateHTML(place, "<p><i>The cell has ended: run it again to move the slider.</i></p>")
	case <-time.After(sliderAnswers):
		gonbui.UpdateHTML(place, "")
	}
	flush()
}

// follow redraws with every movement.
func follow(slider *widgets.SliderBuilder, show func(i int)) {
	moved := slider.Listen().LatestOnly()
	show(slider.Value())
	for {
		select {
		case i := <-moved.C:
			show(i)
		case <-time.After(sliderRests):
			return
		}
	}
}

// RungTable shows rungs as a table, with what the divergence should fall by from row to row: it
// grows with the square of a step of the codes, as long as that is small.
func RungTable(rungs ...Rung) {
	var rows [][]string
	for i, r := range rungs {
		row := []string{fmt.Sprint(r.Bits), fmt.Sprintf("%.2f", r.PerValue), fmt.Sprintf("%.5f", r.KL), "", "", fmt.Sprintf("%.2f", r.Agreement)}
		if i > 0 {
			row[3], row[4] = fmt.Sprintf("%.1f", fallOf(rungs[i-1].Bits, r.Bits)), fmt.Sprintf("%.1f", rungs[i-1].KL/r.KL)
		}
		rows = append(rows, row)
	}
	Table([]string{"bits of a code", "bits a value", "KL in nats", "expected to fall by", "measured", "agreement"}, rows...)
}

// fallOf is the square of how much smaller a step is with more bits.
func fallOf(bits, more int) float64 {
	steps := float64(int(1)<<more-1) / float64(int(1)<<bits-1)
	return steps * steps
}

// LadderText says in words what [Ladder] draws.
func LadderText(rungs ...Rung) string {
	var b strings.Builder
	b.WriteString("A row for each width of codes.")
	for _, r := range rungs {
		fmt.Fprintf(&b, " %d bits: %s; the model writes on: %s.", r.Bits, r.figures(), marked(r))
	}
	return b.String()
}

// SharedText is the beginning that two texts share, up to a whole word.
func SharedText(a, b string) string {
	n := 0
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	if n == len(a) && n == len(b) {
		return a
	}
	return a[:max(strings.LastIndexAny(a[:n], " \n"), 0)]
}
