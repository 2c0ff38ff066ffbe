// Package exercise checks what a reader writes into the exercises of the notebooks, a file a
// notebook. A check calls the reader's function with cases of its own and says "right", or "not
// yet" with the first case that is wrong, named by its inputs, and by how much it is off.
//
// It changes when an exercise does. Package notebooks/solutions has an answer to each.
package exercise

import (
	"fmt"
	"math"
)

// Verdict is what a check says of an answer.
type Verdict struct {
	Right bool
	Text  string
}

// String is the line to show.
func (v Verdict) String() string { return v.Text }

func right(format string, args ...any) Verdict {
	return Verdict{true, "right: " + fmt.Sprintf(format, args...)}
}

func notYet(format string, args ...any) Verdict {
	return Verdict{false, "not yet: " + fmt.Sprintf(format, args...)}
}

// trial is a call of the reader's function: its inputs in words, and what should come.
type trial struct {
	with string
	call func() float64
	want float64
}

// judge makes the calls. what names the result in the reader's words; an answer may be off by
// tolerance of what is wanted, for sums in another order.
func judge(what string, tolerance float64, trials ...trial) Verdict {
	var first string
	good := 0
	for _, t := range trials {
		got, panicked := attempt(t.call)
		off := math.Abs(got - t.want)
		switch {
		case panicked == "" && off <= tolerance*max(1, math.Abs(t.want)):
			good++
			continue
		case first != "":
			continue
		case panicked != "":
			first = fmt.Sprintf("%s your function panicked: %s", t.with, panicked)
		case math.IsNaN(got) || math.IsInf(got, 0):
			first = fmt.Sprintf("%s %s is %s, wanted %.6g", t.with, what, text(got), t.want)
		default:
			first = fmt.Sprintf("%s %s is %.6g, wanted %.6g (off by %.2g)", t.with, what, got, t.want, off)
		}
	}
	if first == "" {
		return right("%s, in all %d cases", what, len(trials))
	}
	return notYet("%s. %d of %d cases are right", first, good, len(trials))
}

func text(x float64) string {
	if math.IsNaN(x) {
		return "not a number (NaN)"
	}
	return "infinite"
}

// attempt calls f, and says with what it panicked.
func attempt[T any](f func() T) (result T, panicked string) {
	defer func() {
		if r := recover(); r != nil {
			panicked = fmt.Sprint(r)
		}
	}()
	return f(), ""
}
