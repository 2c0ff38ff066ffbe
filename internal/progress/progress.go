// Package progress tells how far a download is, in lines of text.
package progress

import (
	"fmt"
	"io"
	"time"
)

// Lines returns a callback that prints a line now and then, for notebooks and logs: where it
// begins, each tenth but not more often than every two seconds, every ten seconds, and the end.
func Lines(w io.Writer, name string) func(done, total int64) { return lines(w, name, time.Now) }

func lines(w io.Writer, name string, now func() time.Time) func(done, total int64) {
	const pause, silence = 2 * time.Second, 10 * time.Second
	tenth := int64(-1)
	var last time.Time
	return func(done, total int64) {
		end := done == total
		reached, since := done/max(total/10, 1), now().Sub(last)
		if (reached <= tenth || !end && since < pause) && (tenth < 0 || since < silence) {
			return
		}
		tenth, last = reached, now()
		fmt.Fprintf(w, "fetching %s: %s\n", name, sofar(done, total))
	}
}

// sofar is how far a download is.
func sofar(done, total int64) string {
	return fmt.Sprintf("%s of %s (%d %%)", Bytes(done), Bytes(total), int(float64(done)/float64(total)*100))
}

// Rate tells how far a download is, how fast it goes and how long it will take.
type Rate struct {
	now   func() time.Time
	start time.Time
	first int64 // bytes that were there at the start
}

// NewRate has a clock; nil is that of the machine.
func NewRate(now func() time.Time) *Rate {
	if now == nil {
		now = time.Now
	}
	return &Rate{now: now}
}

// Line is the state in a few words. Speed and time are those since the first call, and told once
// that was a second ago.
func (r *Rate) Line(done, total int64) string {
	if r.start.IsZero() {
		r.start, r.first = r.now(), done
	}
	took := r.now().Sub(r.start).Seconds()
	if took < 1 || done <= r.first {
		return sofar(done, total)
	}
	rate := float64(done-r.first) / took
	left := time.Duration(float64(total-done) / rate * float64(time.Second)).Round(time.Second)
	return fmt.Sprintf("%s, %s/s, %v left", sofar(done, total), Bytes(int64(rate)), left)
}

// Bytes prints a size as the hub's pages do, in powers of 1000.
func Bytes(n int64) string {
	size, unit := float64(n), 0
	for units := len("kMGTP"); size >= 999.5 && unit < units; unit++ {
		size /= 1000
	}
	if unit == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.3g %cB", size, "kMGTP"[unit-1])
}
