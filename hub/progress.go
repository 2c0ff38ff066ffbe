package hub

import "sync"

// Progress is how far a Fetch is.
type Progress struct {
	File string // the one that the newest bytes are of
	// bytes of all files that were not there, with what an earlier Fetch left of them
	Done, Total int64
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
