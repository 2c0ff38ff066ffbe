package browsertest

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// The slider of notebook 5: what it shows follows every movement, and the cell ends by itself and
// takes the slider along.
func TestSlider(t *testing.T) {
	b := Open(t, 1366, 768)
	lab := Start(t)
	n := lab.OpenFile(b, "05-does-it-still-speak-well.ipynb")
	n.Run(n.Find("%noautoget"))
	at := n.Find("nb.Slide(")
	// two results made up here: what is tried is the slider
	n.Edit(at, "%%\nnb.Slide(nb.Rung{Bits: 2, Text: \" the sea\", Same: \" the\"},\n\tnb.Rung{Bits: 5, Text: \" the old man\", Same: \" the old man\"})")
	n.ShiftEnter(at)
	const slider = `document.querySelector(".kvq-slider input[type=range]")`
	n.WaitFor("the slider", 30*time.Second, slider)
	shows := func(bits int) string {
		return fmt.Sprintf(`[...document.querySelectorAll(".rung b")].some(e => e.textContent === "%d bits")`, bits)
	}
	n.Wait("the first width", shows(2))
	b.Picture("slider")
	move := func(to int) {
		Value[bool](b, fmt.Sprintf(`(s => { s.value = "%d"; s.dispatchEvent(new Event("input")); return true; })(%s)`, to, slider))
	}
	for _, to := range []int{1, 0, 1} {
		move(to)
		n.WaitFor("a movement's result", 5*time.Second, shows([]int{2, 5}[to]))
	}
	if text := n.Cell(at).Text; !strings.Contains(text, "the old man") || strings.Contains(text, "▶") {
		t.Errorf("after the last movement the cell shows %q", text)
	}
	start := time.Now()
	c := n.Ended(at)
	if c.Failed || !strings.Contains(c.Text, "run it again to move the slider") || !strings.Contains(c.Text, "the old man") {
		t.Errorf("the cell ended with %q", c.Text)
	}
	if took := time.Since(start); took < 10*time.Second {
		t.Errorf("it ended %v after the last movement", took)
	}
	n.Wait("no slider", `!`+slider)
}
