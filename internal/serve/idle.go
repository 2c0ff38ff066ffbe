package serve

import (
	"sync"
	"time"
)

// idle knows since when nothing is under way. Safe for concurrent use.
type idle struct {
	mu    sync.Mutex
	busy  int // requests under way
	after time.Duration
	timer *time.Timer // nil: nobody wants to know
}

// OnIdle calls f, in a goroutine of its own, when no request has been under way for so long,
// counted from now at the earliest. A request that comes while f is called is answered all the
// same, as long as the server is.
func (s *Server) OnIdle(after time.Duration, f func()) {
	i := &s.idle
	i.mu.Lock()
	defer i.mu.Unlock()
	i.after, i.timer = after, time.AfterFunc(after, f)
	if i.busy > 0 {
		i.timer.Stop()
	}
}

func (i *idle) begin() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.busy++; i.timer != nil {
		i.timer.Stop()
	}
}

func (i *idle) end() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.busy--; i.busy == 0 && i.timer != nil {
		i.timer.Reset(i.after)
	}
}
