package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/kvqbook/kvqbook/internal/cli"
)

// display shows the texts of a batch while they grow.
type display interface {
	// add shows the next text of each row.
	add(fresh []string) error
	// end shows what is left to show.
	end() error
}

// newDisplay chooses: a single text flows; several share a terminal, a line each, until they are
// done; elsewhere they are printed whole, since their pieces would come mixed. before is what each
// text begins with.
func newDisplay(w io.Writer, before []string) display {
	switch {
	case len(before) == 1:
		return &flowing{w: w, terminal: cli.IsTerminal(w), before: before[0]}
	case cli.IsTerminal(w):
		return &sharing{whole: whole{w: w, texts: append([]string{}, before...), clean: cli.Printable}}
	}
	return &whole{w: w, texts: append([]string{}, before...), clean: func(s string) string { return s }}
}

// quiet shows nothing.
type quiet struct{}

func (quiet) add([]string) error { return nil }
func (quiet) end() error         { return nil }

// flowing prints one text as it comes.
type flowing struct {
	w        io.Writer
	terminal bool
	before   string
	begun    bool
}

func (d *flowing) add(fresh []string) error {
	piece := fresh[0]
	if !d.begun {
		piece = d.before + piece
		d.begun = true
	}
	if d.terminal {
		piece = cli.Printable(piece)
	}
	_, err := io.WriteString(d.w, piece)
	return err
}

func (d *flowing) end() error {
	if !d.begun {
		return nil
	}
	_, err := io.WriteString(d.w, "\n")
	return err
}

// whole prints each text in one piece, at the end, with its number.
type whole struct {
	w     io.Writer
	texts []string
	clean func(string) string
}

func (d *whole) add(fresh []string) error {
	for i, piece := range fresh {
		d.texts[i] += piece
	}
	return nil
}

func (d *whole) end() error {
	for i, t := range d.texts {
		if _, err := fmt.Fprintf(d.w, "[%d] %s\n", i+1, d.clean(t)); err != nil {
			return err
		}
	}
	return nil
}

// sharing gives each text one line of the terminal, which shows its end; the whole texts replace
// these lines when they are done.
type sharing struct {
	whole
	drawn int // lines on the screen
}

func (d *sharing) add(fresh []string) error {
	if err := d.whole.add(fresh); err != nil {
		return err
	}
	columns, lines := cli.TerminalSize(d.w)
	screen := d.back()
	d.drawn = min(len(d.texts), max(lines-1, 1))
	for i, t := range d.texts[:d.drawn] {
		label := fmt.Sprintf("[%d] ", i+1)
		oneLine := strings.Join(strings.Fields(cli.Printable(t)), " ")
		screen += "\x1b[K" + label + tail(oneLine, columns-len(label)-1) + "\n"
	}
	_, err := io.WriteString(d.w, screen)
	return err
}

func (d *sharing) end() error {
	// J clears to the end of the screen
	if _, err := io.WriteString(d.w, d.back()+"\x1b[J"); err != nil {
		return err
	}
	return d.whole.end()
}

// back moves the cursor to the first line drawn.
func (d *sharing) back() string {
	if d.drawn == 0 {
		return "\r"
	}
	return fmt.Sprintf("\r\x1b[%dA", d.drawn)
}

// tail is the end of s that fits into so many columns.
func tail(s string, columns int) string {
	runes := []rune(s)
	from, width := len(runes), 0
	for from > 0 {
		w := text.RuneWidth(runes[from-1])
		if width+w > columns {
			break
		}
		width += w
		from--
	}
	return string(runes[from:])
}
