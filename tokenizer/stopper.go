package tokenizer

import (
	"slices"
	"strings"
)

// Stopper ends a text that comes in pieces before the first of some stop strings. It holds back
// what may still become one, so that nothing of a stop string is ever given out. The zero value has
// no stop strings. Not safe for concurrent use.
type Stopper struct {
	stops   []string
	waiting string // given in and not out: the beginning of a stop string, perhaps
	stopped bool
}

// NewStopper makes one for stop strings, which are not empty.
func NewStopper(stops ...string) *Stopper { return &Stopper{stops: slices.Clone(stops)} }

// Push takes the next piece and returns the text that is certain now. ended says that a stop string
// is there: the text is over, and further pieces are dropped.
//
// Of several stop strings the one that is complete first counts; of those that are complete at the
// same character, the one that begins first.
func (s *Stopper) Push(piece string) (text string, ended bool) {
	if s.stopped {
		return "", true
	}
	s.waiting += piece
	if at := s.find(); at >= 0 {
		text, s.waiting, s.stopped = s.waiting[:at], "", true
		return text, true
	}
	keep := s.beginning()
	text, s.waiting = s.waiting[:len(s.waiting)-keep], s.waiting[len(s.waiting)-keep:]
	return text, false
}

// Stopped tells whether a stop string has come.
func (s *Stopper) Stopped() bool { return s.stopped }

// Flush ends the text and returns what was held back.
func (s *Stopper) Flush() string {
	text := s.waiting
	s.waiting = ""
	return text
}

// find is where the stop string begins that is complete first; -1: none is.
func (s *Stopper) find() int {
	begin, end := -1, len(s.waiting)+1
	for _, stop := range s.stops {
		at := strings.Index(s.waiting, stop)
		if at < 0 {
			continue
		}
		if to := at + len(stop); to < end || to == end && at < begin {
			begin, end = at, to
		}
	}
	return begin
}

// beginning is the length of the longest end of the text that is the beginning of a stop string.
func (s *Stopper) beginning() int {
	longest := 0
	for _, stop := range s.stops {
		for n := min(len(stop)-1, len(s.waiting)); n > longest; n-- {
			if strings.HasSuffix(s.waiting, stop[:n]) {
				longest = n
			}
		}
	}
	return longest
}
