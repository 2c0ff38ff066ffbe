package hubtest

import (
	"net/http"
	"sync/atomic"
)

// First applies a fault to the first n requests.
func First(n int, fault Fault) Fault {
	var count atomic.Int64
	return func(w http.ResponseWriter, r *http.Request) bool { return count.Add(1) <= int64(n) && fault(w, r) }
}

// Status answers with a status. Retry-After is 0, so that tests do not wait.
func Status(status int, message string) Fault {
	return func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Retry-After", "0")
		deny(w, status, "", message)
		return true
	}
}

// Cut breaks the connection after n bytes of the body.
func (s *Server) Cut(n int) Fault {
	return s.through(func(w http.ResponseWriter, p []byte, sent int) []byte {
		if sent+len(p) <= n {
			return p
		}
		_, _ = w.Write(p[:max(n-sent, 0)])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
}

// Stall sends n bytes of the body and then nothing, until the client goes away.
func (s *Server) Stall(n int) Fault {
	return func(w http.ResponseWriter, r *http.Request) bool {
		return s.through(func(w http.ResponseWriter, p []byte, sent int) []byte {
			if sent+len(p) <= n {
				return p
			}
			_, _ = w.Write(p[:max(n-sent, 0)])
			_ = http.NewResponseController(w).Flush()
			select {
			case <-r.Context().Done():
			case <-s.closing:
			}
			panic(http.ErrAbortHandler)
		})(w, r)
	}
}

// Corrupt changes the first byte of the body.
func (s *Server) Corrupt() Fault {
	return s.through(func(_ http.ResponseWriter, p []byte, sent int) []byte {
		if sent > 0 || len(p) == 0 {
			return p
		}
		return append([]byte{p[0] ^ 1}, p[1:]...)
	})
}

// WithoutRanges serves as one who knows no ranges.
func (s *Server) WithoutRanges() Fault {
	return func(w http.ResponseWriter, r *http.Request) bool {
		r.Header.Del("Range")
		return false
	}
}

// through serves the storage's answer, with its body changed. change gets what was sent before.
func (s *Server) through(change func(w http.ResponseWriter, p []byte, sent int) []byte) Fault {
	return func(w http.ResponseWriter, r *http.Request) bool {
		quiet := &Server{Repos: s.Repos} // the request is in the log already
		quiet.serveStorage(&changed{ResponseWriter: w, change: change}, r)
		return true
	}
}

type changed struct {
	http.ResponseWriter
	change func(w http.ResponseWriter, p []byte, sent int) []byte
	sent   int
}

func (c *changed) Write(p []byte) (int, error) {
	_, err := c.ResponseWriter.Write(c.change(c.ResponseWriter, p, c.sent))
	c.sent += len(p)
	return len(p), err
}
