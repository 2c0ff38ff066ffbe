// Package nb holds what the notebooks need around the library: pictures, tables and plots in a
// cell's output, results kept from one cell to the next, and the way from a model's name to its
// files. Nothing here computes anything of the lesson.
//
// A cell of GoNB is a program of its own, so these functions do not return errors that a cell would
// have to pass on: what cannot be shown ends the cell with one line, as [Must] does. Outside of a
// notebook text goes to standard output.
package nb

import (
	"fmt"
	"os"
	"strings"

	"github.com/gomlx/compute"
	"github.com/janpfeifer/gonb/gonbui"

	"github.com/kvqbook/kvqbook/internal/asset"
)

// Must returns v, or ends the cell with the error in one line. With the first device of a notebook
// it says, where it is so, why compiled graphs are not kept.
func Must[T any](v T, err error) T {
	Check(err)
	if _, opened := any(v).(compute.Backend); opened && asset.NotKept != nil {
		fmt.Fprint(os.Stderr, notKept(asset.NotKept()))
	}
	return v
}

// saidNotKept is the name under which a cell leaves word for later ones that it has said so.
const saidNotKept = "kvqbook-not-kept"

// notKept is the line to show for what device.NotKept returned: once for each kernel, as the
// command line shows it once for each command.
func notKept(refused error) string {
	if refused == nil {
		return ""
	}
	line, said := fmt.Sprintf("note: %v\n", refused), ""
	if _, err := load(saidNotKept, nil, &said); err == nil && said == line {
		return ""
	}
	// where nothing can be saved the line is shown again, which is all
	_ = save(saidNotKept, nil, line)
	return line
}

// Check ends the cell with the error in one line, if there is one.
func Check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// Table shows rows under a header; every row has as many columns as the header.
func Table(header []string, rows ...[]string) {
	text, err := markdown(header, rows)
	Check(err)
	if gonbui.IsNotebook {
		gonbui.DisplayMarkdown(text)
		flush()
		return
	}
	fmt.Print(text)
}

func markdown(header []string, rows [][]string) (string, error) {
	var b strings.Builder
	line := func(cells []string) {
		for _, cell := range cells {
			b.WriteString("| " + strings.NewReplacer("|", `\|`, "\n", " ⏎ ").Replace(cell) + " ")
		}
		b.WriteString("|\n")
	}
	line(header)
	b.WriteString(strings.Repeat("| --- ", len(header)) + "|\n")
	for i, row := range rows {
		if len(row) != len(header) {
			return "", fmt.Errorf("nb.Table: row %d has %d columns, the header %d", i, len(row), len(header))
		}
		line(row)
	}
	return b.String(), nil
}

// Bytes writes a number of bytes with a unit: "1.50 MiB".
func Bytes(n int64) string {
	switch {
	case n < 1<<10:
		return fmt.Sprintf("%d B", n)
	case n < 1<<20:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%.2f MiB", float64(n)/(1<<20))
}
