package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"
	"unicode"

	"github.com/dustin/go-humanize"
	"github.com/spf13/pflag"
	"golang.org/x/term"
)

// PrintJSON prints one object on one line.
func PrintJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// RegisterJSON adds --json.
func RegisterJSON(fs *pflag.FlagSet, on *bool) {
	fs.BoolVar(on, "json", false, "print one JSON object and nothing else")
}

// NumberOrNull is x for JSON, which has no NaN and no infinity: these become null.
func NumberOrNull(x float64) *float64 {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return nil
	}
	return &x
}

// IsTerminal tells whether a person watches.
func IsTerminal(w any) bool {
	f, ok := behind(w).(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// otherwiseWide is the width of lines that go to no terminal.
const otherwiseWide = 80

// TerminalSize returns columns and lines of the terminal that w is.
func TerminalSize(w any) (columns, lines int) {
	if f, ok := behind(w).(*os.File); ok {
		if c, l, err := term.GetSize(int(f.Fd())); err == nil && c > 0 && l > 0 {
			return c, l
		}
	}
	if c, err := strconv.Atoi(os.Getenv("COLUMNS")); err == nil && c > 0 {
		return c, 24
	}
	return otherwiseWide, 24
}

// ByteCount is a number of bytes in full, and in a unit that says something.
func ByteCount(n int64) string {
	if n < 1024 {
		return fmt.Sprintf("%d", n)
	}
	return fmt.Sprintf("%s (%s)", humanize.Comma(n), humanize.IBytes(uint64(n)))
}

// Printable takes control characters out of a text that a model wrote: a terminal would obey them.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && unicode.IsControl(r) {
			return unicode.ReplacementChar
		}
		return r
	}, s)
}

// Note tells a person who watches what is going on.
func Note(errs io.Writer, format string, args ...any) {
	if IsTerminal(errs) {
		fmt.Fprintf(errs, format+"\n", args...)
	}
}
