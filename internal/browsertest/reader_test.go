package browsertest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// wholeNotebook is how long all cells of one may take.
const wholeNotebook = 15 * time.Minute

// All cells run, again after a restart of the kernel, and nothing of it reaches git.
func TestRunAll(t *testing.T) {
	b := Open(t, 1366, 768)
	lab := Start(t)
	before := gitStatus(t, lab.Root)
	n := lab.Open(b, lab.Address)
	for _, run := range []struct {
		name string
		do   func(time.Duration) []Cell
	}{{"Run All", func(patience time.Duration) []Cell {
		n.BeginAll()
		waitingCellsAreMarked(t, n)
		n.AllEnded(patience)
		return n.Cells()
	}}, {"Restart and Run All", n.RestartAndRunAll}} {
		began := time.Now()
		for i, c := range run.do(wholeNotebook) {
			if c.Failed {
				t.Errorf("%s: cell %d failed: %s\n%s", run.name, i, c.Source, c.Text)
			}
		}
		t.Logf("%s: %.0f s", run.name, time.Since(began).Seconds())
		quantized, full := n.Cell(n.Find(`generate("quantized", `)), n.Cell(n.Find(`generate("full", `))
		if !strings.Contains(quantized.Text, "and I'm happy to assist you in any way") || !strings.Contains(full.Text, "What brings you here today?") {
			t.Errorf("%s: the generations:\n%s\n%s", run.name, quantized.Text, full.Text)
		}
	}
	n.Save()
	if after := gitStatus(t, lab.Root); after != before {
		t.Errorf("git status was %q, and is %q", before, after)
	}
}

// While all cells run, those that wait keep their mark: the cell whose configuration is impossible
// says so, and does not fail.
func waitingCellsAreMarked(t *testing.T, n *Notebook) {
	t.Helper()
	impossible := n.Find("QGroupSize = 48")
	for deadline := time.Now().Add(wholeNotebook); ; time.Sleep(100 * time.Millisecond) {
		cells := n.Cells()
		if cells[impossible].Count == 0 || cells[impossible].Running {
			if time.Now().After(deadline) {
				n.fail("cell %d did not run", impossible)
			}
			continue
		}
		for i, c := range cells[impossible+1:] {
			if c.Kind == "code" && c.Source != "" && !c.Running && c.Count == 0 {
				t.Errorf("cell %d neither waits nor has run", impossible+1+i)
			}
		}
		return
	}
}

// scratch is a notebook of the reader's with the first cell of the course and empty ones below.
func scratch(t *testing.T, lab *Lab, b *Browser, cells ...string) *Notebook {
	t.Helper()
	head := `%noautoget
import (
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/notebooks/exercise"
)`
	list := ""
	for i, source := range append([]string{head}, cells...) {
		list += fmt.Sprintf(`,{"cell_type":"code","id":"c%d","metadata":{},"execution_count":null,"outputs":[],"source":%q}`, i, source)
	}
	text := `{"nbformat":4,"nbformat_minor":5,"metadata":{"kernelspec":{"name":"gonb","display_name":"Go (GoNB)","language":"go"}},"cells":[` + list[1:] + `]}`
	if err := os.WriteFile(filepath.Join(lab.Folder, "scratch.ipynb"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	n := lab.OpenFile(b, "scratch.ipynb")
	n.Run(0)
	return n
}

// A slip is named; a compile error in an exercise is the only thing its cell says.
func TestSlips(t *testing.T) {
	b := Open(t, 1366, 768)
	lab := Start(t)
	const exercise = "func bitsPerValue(bits, group, scaleBits int) float64 {\n\treturn 0 // your turn\n}\n%%\nfmt.Println(exercise.BitsPerValue(bitsPerValue))"
	n := scratch(t, lab, b, "%%\nfmt.Printl(\"hello\")", "%%\nkvq.Tutoral()", exercise)
	if c := n.Run(1); !c.Failed || !strings.Contains(c.Text, "undefined: fmt.Printl") {
		t.Errorf("fmt.Printl: %q", c.Text)
	}
	if c := n.Run(2); !c.Failed || !strings.Contains(c.Text, "undefined: kvq.Tutoral") {
		t.Errorf("kvq.Tutoral: %q", c.Text)
	}
	b.Picture("slips")
	if c := n.Run(3); c.Failed || !strings.Contains(c.Text, "not yet: with 4 bits, groups of 32 and scales of 16 bits") {
		t.Errorf("an exercise not done: %q", c.Text)
	}
	n.Replace(3, "return 0", "return bits + 2*scaleBits/group")
	if c := n.Run(3); !c.Failed || !strings.Contains(c.Text, "cannot use") || strings.Contains(c.Text, "the cost of a number") {
		t.Errorf("an exercise that does not compile: %q", c.Text)
	}
	n.Replace(3, "bits + 2*scaleBits/group", "float64(bits) + 2*float64(scaleBits)/float64(group)")
	if c := n.Run(3); c.Failed || !strings.Contains(c.Text, "right: ") {
		t.Errorf("an exercise solved: %q", c.Text)
	}
	b.Picture("exercise")
}

// An interrupt ends a cell while it is built, and while its program runs; what it printed stays.
func TestInterrupt(t *testing.T) {
	b := Open(t, 1366, 768)
	lab := Start(t)
	// One that takes a while to link, for it imports much; one that runs until it is interrupted.
	n := scratch(t, lab, b,
		"import \"github.com/kvqbook/kvqbook/notebooks/nb\"\n%%\nfmt.Println(\"ran\", nb.Bytes(1))\ntime.Sleep(time.Hour)",
		"%%\nfor i := range 1000 {\n\tfmt.Println(\"line\", i)\n\ttime.Sleep(100*time.Millisecond)\n}",
		"%%\nfmt.Println(\"still there\")")
	n.ShiftEnter(1)
	n.Wait("the build", n.busy())
	n.Interrupt()
	c := n.Ended(1)
	if !c.Failed || strings.Contains(c.Text, "ran") {
		t.Errorf("interrupted while it was built: %+v", c)
	}
	b.Picture("interrupted-build")
	n.ShiftEnter(2)
	n.Wait("its first lines", n.panel+`.content.widgets[2].model.outputs.toJSON().some(o => (o.text ?? "").includes("line 3"))`)
	n.Interrupt()
	if c := n.Ended(2); !c.Failed || !strings.Contains(c.Text, "line 3") || !strings.Contains(c.Text, "interrupt") || strings.Contains(c.Text, "line 999") {
		t.Errorf("interrupted while it ran: %+v", c)
	}
	b.Picture("interrupted")
	if c := n.Run(3); c.Failed || c.Text != "still there\n" {
		t.Errorf("after the interrupts: %+v", c)
	}
}

// busy is JavaScript: the kernel works.
func (n *Notebook) busy() string {
	return n.panel + `.sessionContext.session?.kernel?.status === "busy"`
}

// A generating cell that is interrupted keeps its text; a prompt edited, and one cell run again,
// gives another.
func TestGenerationInterrupted(t *testing.T) {
	b := Open(t, 1366, 768)
	lab := Start(t)
	n := lab.Open(b, lab.Address)
	prompts, generate := n.Find("var prompts = "), n.Find(`generate("quantized, long", `)
	for i, c := range n.Cells()[:prompts+1] {
		if c.Kind == "code" && (i == prompts || strings.Contains(c.Source, "%noautoget") || strings.Contains(c.Source, "const modelName") || strings.Contains(c.Source, "func load(")) {
			n.Run(i)
		}
	}
	n.Run(n.Find("type Made struct"))
	n.Run(n.Find("func generate("))
	n.ShiftEnter(generate)
	n.Wait("new text", n.panel+fmt.Sprintf(`.content.widgets[%d].model.outputs.toJSON().some(o => /<b>[^<]*\w+ \w+ \w+/.test([o.data?.["text/html"]].flat().join("")))`, generate))
	n.Interrupt()
	if c := n.Ended(generate); !c.Failed || !strings.Contains(c.Text, "<b>") || !strings.Contains(c.Text, "interrupted: ") {
		t.Errorf("interrupted: %+v", c)
	}
	b.Picture("generation-interrupted")
	n.Replace(prompts, "Hello, how are you?", "The capital of France is")
	if c := n.Run(prompts); c.Failed || !strings.Contains(c.Text, "The capital of France is") {
		t.Errorf("the prompt edited: %+v", c)
	}
	if c := n.Run(n.Find(`generate("quantized", `)); c.Failed || !strings.Contains(c.Text, "Paris") {
		t.Errorf("the edited prompt: %+v", c)
	}
}

// Tab completes and Shift-Tab explains.
func TestCompletion(t *testing.T) {
	b := Open(t, 1366, 768)
	lab := Start(t)
	n := scratch(t, lab, b, "%%\nconfig := kvq.Tut\nfmt.Println(config)", "%%\nfmt.Println(kvq.Tutorial())")
	n.Focus(1, 1, len("config := kvq.Tut"))
	// The first answer waits for gopls to read the packages.
	began := time.Now()
	for deadline := time.Now().Add(Patience); ; {
		n.Press(kb.Tab)
		if n.soon(`document.querySelector(".jp-Completer:not(.lm-mod-hidden)")?.textContent.includes("Tutorial") ||
			`+n.panel+`.content.widgets[1].model.sharedModel.getSource().includes("kvq.Tutorial")`, 20*time.Second) {
			break
		}
		if time.Now().After(deadline) {
			b.fail("Tab completes nothing: %s", n.Cell(1).Source)
		}
		n.Focus(1, 1, len("config := kvq.Tut"))
	}
	t.Logf("Tab: %.1f s", time.Since(began).Seconds())
	b.Picture("tab")
	n.Press(kb.Escape)
	n.Focus(2, 1, len("fmt.Println(kvq.Tutor"))
	began = time.Now()
	for deadline := time.Now().Add(Patience); ; {
		n.Press(kb.Tab, chromedp.KeyModifiers(kb.ModifierShift))
		if n.soon(`document.querySelector(".jp-Tooltip")?.textContent.includes("func kvq.Tutorial() kvq.Config")`, 20*time.Second) {
			break
		}
		if time.Now().After(deadline) {
			b.fail("Shift-Tab explains nothing")
		}
	}
	t.Logf("Shift-Tab: %.1f s", time.Since(began).Seconds())
	b.Picture("shift-tab")
}

// soon reports whether an expression becomes true in that time.
func (n *Notebook) soon(expression string, patience time.Duration) bool {
	n.t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if Value[bool](n.Browser, "Boolean("+expression+")") {
			return true
		}
	}
	return false
}

// Every notebook opens without being changed, and its code needs no scroll bar on a laptop.
// Pictures of all of it, at the width of a laptop and of a projector, are kept where
// KVQ_SCREENSHOTS says.
func TestEveryNotebookOpens(t *testing.T) {
	b := Open(t, 1366, 768)
	lab := Start(t)
	list, err := filepath.Glob(filepath.Join(lab.Folder, "*.ipynb"))
	if err != nil || len(list) == 0 {
		t.Fatalf("no notebooks: %v", err)
	}
	for _, path := range list {
		name := filepath.Base(path)
		b.Size(1366, 768)
		n := lab.OpenFile(b, name)
		n.Wait("what the kernel says of its language", n.panel+`.content.model.getMetadata("language_info")?.version`)
		if n.Dirty() {
			t.Errorf("%s has changes right after it was opened", name)
		}
		wide := Value[[]int](b, n.panel+`.content.widgets.map((w, i) => [w, i]).filter(([w]) => w.model.type === "code" &&
			w.editor && w.editor.editor.scrollDOM.scrollWidth > w.editor.editor.scrollDOM.clientWidth + 1).map(([, i]) => i)`)
		if len(wide) > 0 {
			t.Errorf("%s: cells with a scroll bar at 1366 pixels: %v", name, wide)
		}
		if os.Getenv(ScreenshotsVariable) == "" {
			continue
		}
		for _, width := range []int{1366, 1920} {
			b.Size(width, 1000)
			for i := 0; i < len(n.Cells()); i += 4 {
				Value[bool](b, n.panel+fmt.Sprintf(`.content.scrollToItem(%d, "start").then(() => true)`, i))
				time.Sleep(300 * time.Millisecond) // cells that come into view are drawn
				b.Picture(fmt.Sprintf("%s-%d-%02d", strings.TrimSuffix(name, ".ipynb"), width, i))
			}
		}
	}
}
