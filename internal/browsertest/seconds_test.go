package browsertest

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/kvqbook/kvqbook/internal/testlane"
)

// Times is how long a cell took, in seconds from Shift-Enter, by the page's own clock.
type Times struct {
	First   float64 `json:"first"`   // until it showed something; 0 for nothing
	Silence float64 `json:"silence"` // the longest time without anything new
	End     float64 `json:"end"`
}

// Timed runs a cell by Shift-Enter and waits for its end.
func (n *Notebook) Timed(index int) (Cell, Times) {
	n.t.Helper()
	n.Focus(index, 0, 0)
	Value[bool](n.Browser, fmt.Sprintf(`(model => {
		const times = globalThis.kvqTimes = {first: 0, silence: 0, end: 0};
		let start = 0, last = 0;
		const told = () => { const now = performance.now(); times.silence = Math.max(times.silence, (now - last) / 1000); last = now; };
		addEventListener("keydown", () => start = last = performance.now(), {once: true, capture: true});
		const outputs = () => {
			if (!start || !model.outputs.length) return;
			told();
			times.first ||= (last - start) / 1000;
		};
		const state = (_, change) => {
			if (!start || change.name !== "executionCount" || !change.newValue) return;
			told();
			times.end = (last - start) / 1000;
			model.outputs.changed.disconnect(outputs);
			model.stateChanged.disconnect(state);
		};
		model.outputs.changed.connect(outputs);
		model.stateChanged.connect(state);
		return true;
	})(%s.content.widgets[%d].model)`, n.panel, index))
	n.ShiftEnter(index)
	c := n.Ended(index)
	n.Wait("its times", `kvqTimes.end > 0`)
	return c, Value[Times](n.Browser, `kvqTimes`)
}

// How long the cells of a notebook take, twice: with KVQ_NOTEBOOK naming it,
//
//	KVQ_NOTEBOOK=01-kv-cache-quantization.ipynb KVQ_TEST_ALL=1 go test . -run TestSeconds -v
//
// prints the seconds of each cell. It is a measurement and fails only where a cell does.
func TestSeconds(t *testing.T) {
	name := os.Getenv("KVQ_NOTEBOOK")
	if name == "" {
		t.Skip(testlane.LeftOut + "KVQ_NOTEBOOK names no notebook to time")
	}
	b := Open(t, 1366, 768)
	lab := Start(t)
	n := lab.OpenFile(b, name)
	cells := n.Cells()
	var times [2][]Times
	for run := range times {
		times[run] = make([]Times, len(cells))
		for i, c := range cells {
			if c.Kind != "code" || strings.TrimSpace(c.Source) == "" {
				continue
			}
			var after Cell
			if after, times[run][i] = n.Timed(i); after.Failed {
				t.Errorf("cell %d failed: %s", i, after.Text)
			}
		}
	}
	var table strings.Builder
	fmt.Fprintf(&table, "%s, seconds from Shift-Enter: first output, longest silence, end; first run and second\n", name)
	total := [2]float64{}
	for i, c := range cells {
		if times[0][i].End == 0 {
			continue
		}
		for run := range times {
			at := times[run][i]
			fmt.Fprintf(&table, "%6.1f %5.1f %5.1f   ", at.First, at.Silence, at.End)
			total[run] += at.End
		}
		fmt.Fprintf(&table, "%2d  %s\n", i, firstLine(c.Source))
	}
	fmt.Fprintf(&table, "all: %.0f and %.0f s", total[0], total[1])
	t.Log(table.String())
}

// firstLine is the first line of a cell that says something.
func firstLine(source string) string {
	for line := range strings.Lines(source) {
		if line = strings.TrimSpace(line); line != "" && line != "%%" {
			return line
		}
	}
	return ""
}
