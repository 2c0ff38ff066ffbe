package hub

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// Progress is how far a Fetch is.
type Progress struct {
	File        string // the one that the newest bytes are of
	Done, Total int64  // bytes of all files that were not there, with what an earlier Fetch left of them
}

// tracker adds up what several downloads report. The zero value tells nobody.
type tracker struct {
	mu     sync.Mutex
	now    Progress
	report func(Progress)
}

func (t *tracker) begin(done, total int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.now = Progress{Done: done, Total: total}
	t.tell()
}

func (t *tracker) add(file string, n int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.now.File = file
	t.now.Done += n
	t.tell()
}

// tell is silent before the total is known: the first few small files count for nothing.
func (t *tracker) tell() {
	if t.report != nil && t.now.Total > 0 {
		t.report(t.now)
	}
}

// Lines is a Progress callback that prints a line now and then, for notebooks and logs: where it begins, each tenth but not
// more often than every two seconds, and the end.
func Lines(w io.Writer, name string) func(Progress) { return lines(w, name, time.Now) }

func lines(w io.Writer, name string, now func() time.Time) func(Progress) {
	const pause = 2 * time.Second
	tenth := int64(-1)
	var last time.Time
	return func(p Progress) {
		end := p.Done == p.Total
		if reached := p.Done / max(p.Total/10, 1); reached <= tenth || !end && now().Sub(last) < pause {
			return
		} else {
			tenth, last = reached, now()
		}
		fmt.Fprintf(w, "fetching %s: %s of %s (%d %%)\n", name, Bytes(p.Done), Bytes(p.Total), int(float64(p.Done)/float64(p.Total)*100))
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
