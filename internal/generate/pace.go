package generate

import "time"

// blockTarget is how long a call of the decode loop should take: short enough that text flows and
// Ctrl-C is heard at once, long enough that what a call costs beside its tokens (handing the cache
// over, reading the tokens) is small.
const blockTarget = 250 * time.Millisecond

// Pace chooses how many tokens the next call makes.
type Pace struct {
	Fixed int // as the caller wants it; 0: by time
	Most  int // what the loop's buffers hold
	last  int // size of the call before, 0: none
	step  time.Duration
}

// firstBlock is the first call's size: a few tokens, to learn how long they take.
const firstBlock = 4

// Next is how many.
func (p *Pace) Next() int {
	if p.Fixed > 0 {
		return min(p.Fixed, p.Most)
	}
	if p.last == 0 {
		return min(firstBlock, p.Most)
	}
	n := 4 * p.last // one quick call does not make the next one long
	if p.step > 0 {
		n = min(n, int(blockTarget/p.step))
	}
	return min(max(n, 1), p.Most)
}

// Measured tells how long a call of so many tokens took.
func (p *Pace) Measured(steps int, took time.Duration) {
	if steps > 0 {
		p.last, p.step = steps, took/time.Duration(steps)
	}
}
