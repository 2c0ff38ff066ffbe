// Package progress tells how far a download is, in lines of text.
package progress

import (
	"fmt"
	"io"
	"time"
)

// Lines returns a callback that prints a line now and then, for notebooks and logs: where it
// begins, each tenth but not more often than every two seconds, and the end.
func Lines(w io.Writer, name string) func(done, total int64) { return lines(w, name, time.Now) }

func lines(w io.Writer, name string, now func() time.Time) func(done, total int64) {
	const pause = 2 * time.Second
	tenth := int64(-1)
	var last time.Time
	return func(done, total int64) {
		end := done == total
		if reached := done / max(total/10, 1); reached <= tenth || !end && now().Sub(last) < pause {
			return
		} else {
			tenth, last = reached, now()
		}
		fmt.Fprintf(w, "fetching %s: %s of %s (%d %%)\n", name, Bytes(done), Bytes(total), int(float64(done)/float64(total)*100))
	}
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
