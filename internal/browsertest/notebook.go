package browsertest

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// Notebook is a notebook that is open in JupyterLab, in a window.
type Notebook struct {
	*Browser
	Path string // relative to the clone

	panel string // JavaScript: its panel
}

// Cell is a cell as the page has it now.
type Cell struct {
	Kind    string // code, markdown, raw
	Source  string
	Count   int    // 0 while it runs or waits, and before
	Running bool   // it has the mark of a cell that runs or waits
	Text    string // of its outputs, HTML and Markdown included
	Failed  bool   // one of its outputs is an error
	Picture bool   // one of its outputs is a picture
	Kinds   []string
}

// Open visits an address and waits for the notebook that it opens: its cells are shown, its kernel
// waits for work.
func (l *Lab) Open(b *Browser, address string) *Notebook {
	b.t.Helper()
	b.Visit(address)
	b.Wait("JupyterLab", `globalThis.jupyterapp && jupyterapp.restored.then(() => true)`)
	n := &Notebook{Browser: b, Path: l.path(address)}
	// JupyterLab may open others too, from its last time.
	n.panel = fmt.Sprintf(`[...jupyterapp.shell.widgets("main")].find(w => w.content?.widgets && w.context?.path === %q)`, n.Path)
	b.Wait("the notebook "+n.Path, n.panel)
	b.Wait("its cells", n.panel+`.context.isReady && `+n.panel+`.content.widgets.length > 0`)
	// Its status is unknown until it says something, which may be at the first cell only.
	b.Wait("its kernel", n.panel+`.sessionContext.isReady && `+n.panel+`.sessionContext.session?.kernel?.connectionStatus === "connected"`)
	return n
}

// OpenFile opens a notebook of the reader's folder by its name.
func (l *Lab) OpenFile(b *Browser, name string) *Notebook {
	b.t.Helper()
	return l.Open(b, l.Page(filepath.Base(l.Folder)+"/"+name))
}

// Cells are all cells.
func (n *Notebook) Cells() []Cell {
	n.t.Helper()
	return n.cells("")
}

// Cell is one cell.
func (n *Notebook) Cell(index int) Cell {
	n.t.Helper()
	return n.cells(fmt.Sprintf(".slice(%d, %[1]d+1)", index))[0]
}

func (n *Notebook) cells(which string) []Cell {
	n.t.Helper()
	text := Value[string](n.Browser, `JSON.stringify(`+n.panel+`.content.widgets`+which+`.map(w => {
		const outputs = w.model.type === "code" ? w.model.outputs.toJSON() : [];
		const one = text => Array.isArray(text) ? text.join("") : text ?? "";
		return {
			kind: w.model.type, source: w.model.sharedModel.getSource(), count: w.model.executionCount ?? 0,
			running: w.model.executionState === "running",
			text: outputs.map(o => one(o.text) + one(o.evalue) + Object.entries(o.data ?? {}).
				filter(([k]) => k.startsWith("text/")).map(([k, v]) => one(v)).join("")).join("\n"),
			failed: outputs.some(o => o.output_type === "error"),
			picture: outputs.some(o => Object.keys(o.data ?? {}).some(k => k.startsWith("image/"))),
			kinds: outputs.flatMap(o => [o.output_type, ...Object.keys(o.data ?? {})]),
		};
	}))`)
	var cells []Cell
	if err := json.Unmarshal([]byte(text), &cells); err != nil {
		n.t.Fatal(err)
	}
	return cells
}

// Find is the index of the first code cell that has a text in its source.
func (n *Notebook) Find(text string) int {
	n.t.Helper()
	for i, c := range n.Cells() {
		if c.Kind == "code" && strings.Contains(c.Source, text) {
			return i
		}
	}
	n.t.Fatalf("%s has no cell with %q", n.Path, text)
	return 0
}

// Command executes a command of JupyterLab, as its menus do, without waiting for what it starts.
func (n *Notebook) Command(id string) {
	n.t.Helper()
	Value[bool](n.Browser, fmt.Sprintf(`(jupyterapp.commands.execute(%q), true)`, id))
}

// Edit replaces a cell's source.
func (n *Notebook) Edit(index int, source string) {
	n.t.Helper()
	quoted, _ := json.Marshal(source)
	Value[bool](n.Browser, fmt.Sprintf(`(%s.content.widgets[%d].model.sharedModel.setSource(%s), true)`, n.panel, index, quoted))
}

// Replace replaces a text in a cell's source.
func (n *Notebook) Replace(index int, from, to string) {
	n.t.Helper()
	source := n.Cell(index).Source
	if !strings.Contains(source, from) {
		n.t.Fatalf("cell %d has no %q: %s", index, from, source)
	}
	n.Edit(index, strings.Replace(source, from, to, 1))
}

// Focus puts the cursor into a cell, at a line and column that count from 0.
func (n *Notebook) Focus(index, line, column int) {
	n.t.Helper()
	at := fmt.Sprintf("%s.content.widgets[%d]", n.panel, index)
	Value[bool](n.Browser, fmt.Sprintf(`(notebook => {
		notebook.activate();
		notebook.activeCellIndex = %d;
		notebook.scrollToItem(%[1]d, "center");
		return true;
	})(%s.content)`, index, n.panel))
	n.Wait("the cell's editor", at+`.editor`)
	n.Wait("the cursor", fmt.Sprintf(`(() => {
		%s.content.mode = "edit";
		%s.editor.focus();
		%[2]s.editor.setCursorPosition({line: %d, column: %d});
		return %[2]s.editor.hasFocus();
	})()`, n.panel, at, line, column))
}

// ShiftEnter presses Shift and Enter in a cell, and does not wait for what follows.
func (n *Notebook) ShiftEnter(index int) {
	n.t.Helper()
	n.Focus(index, 0, 0)
	// The numbers of an earlier kernel are not those of this one.
	Value[bool](n.Browser, fmt.Sprintf(`(%s.content.widgets[%d].model.executionCount = null, true)`, n.panel, index))
	n.Press(kb.Enter, chromedp.KeyModifiers(kb.ModifierShift))
}

// Ended waits until a cell has run.
func (n *Notebook) Ended(index int) Cell {
	n.t.Helper()
	n.Wait(fmt.Sprintf("the end of cell %d", index), fmt.Sprintf(`(cell => cell.model.executionCount &&
		cell.model.executionState !== "running")(%s.content.widgets[%d]) && %[1]s.sessionContext.session?.kernel?.status !== "busy"`, n.panel, index))
	return n.Cell(index)
}

// Run runs a cell by Shift-Enter and waits for its end.
func (n *Notebook) Run(index int) Cell {
	n.t.Helper()
	n.ShiftEnter(index)
	return n.Ended(index)
}

// BeginAll begins to run all cells, by the menu's command.
func (n *Notebook) BeginAll() {
	n.t.Helper()
	n.clearCounts()
	n.Command("notebook:run-all-cells")
}

// RunAll runs all cells and waits until each has run.
func (n *Notebook) RunAll(patience time.Duration) []Cell {
	n.t.Helper()
	n.BeginAll()
	n.AllEnded(patience)
	return n.Cells()
}

// RestartAndRunAll is the menu's command, its question answered.
func (n *Notebook) RestartAndRunAll(patience time.Duration) []Cell {
	n.t.Helper()
	n.clearCounts()
	n.Command("notebook:restart-run-all")
	n.Wait("the question", `document.querySelector(".jp-Dialog .jp-mod-accept")`)
	n.Do("restart", chromedp.Click(".jp-Dialog .jp-mod-accept"))
	n.AllEnded(patience)
	return n.Cells()
}

func (n *Notebook) clearCounts() {
	n.t.Helper()
	Value[bool](n.Browser, n.panel+`.content.widgets.every(w => w.model.type !== "code" || (w.model.executionCount = null, true))`)
}

// AllEnded waits until each code cell that has a source has run.
func (n *Notebook) AllEnded(patience time.Duration) {
	n.t.Helper()
	n.WaitFor("the end of all cells", patience, n.panel+`.content.widgets.every(w => w.model.type !== "code" ||
		w.model.sharedModel.getSource().trim() === "" || w.model.executionCount) && `+
		n.panel+`.sessionContext.session?.kernel?.status !== "busy"`)
}

// Interrupt interrupts the kernel as a reader does: Escape, and twice the key i.
func (n *Notebook) Interrupt() {
	n.t.Helper()
	n.Press(kb.Escape)
	n.Press("i")
	n.Press("i")
}

// Save saves the notebook and waits until it is written.
func (n *Notebook) Save() {
	n.t.Helper()
	Value[bool](n.Browser, n.panel+`.context.save().then(() => true)`)
}

// Dirty reports whether the page has changes that the file has not.
func (n *Notebook) Dirty() bool {
	n.t.Helper()
	return Value[bool](n.Browser, n.panel+`.context.model.dirty`)
}
