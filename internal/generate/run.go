package generate

import (
	"context"
	"slices"
	"time"
)

// Run is one generation on the host's side: which tokens were made, and which rows have ended. Not
// safe for concurrent use.
type Run struct {
	Rows    [][]int32 // new tokens of each row, padding included
	Lengths []int     // how many of them are the row's own
	Done    []bool    // the row has ended
	Limit   int       // new tokens wanted
	Pace    Pace
	// fills rows that have ended where a batch makes no padding itself
	Pad    int32
	Before []int32 // each row's newest token before the first one of Rows, or nil
	// Ends is told each new token of a row, in order, and says whether it ends the row; nil where
	// the batch tells
	Ends func(row int, token int32) bool
}

// NewRun is a generation of so many rows.
func NewRun(rows, limit int) Run {
	return Run{Rows: make([][]int32, rows), Lengths: make([]int, rows), Done: make([]bool, rows), Limit: limit}
}

// Batch is what a generation runs on: rows that share a cache.
type Batch interface {
	// First begins and returns the first new token of each row, as one step, or no step where
	// Decode makes it.
	First(ctx context.Context) (Decoded, error)
	// Decode calls the loop for n tokens.
	Decode(ctx context.Context, n int) (Decoded, error)

	// Capacity is the slots of a row of the cache, and Room how many of them are free.
	Capacity() int
	Room() int
	// Prepare begins to compile the loop for a cache of another capacity; Grow moves the cache into
	// one.
	Prepare(capacity int) error
	Grow(ctx context.Context, capacity int) error
}

// Decoded is what a call of the loop has made.
type Decoded struct {
	Steps  int
	Tokens []int32 // [N, B], the first Steps rows; below 0 where a row had ended before
	Done   []bool  // [B]: the row has ended; nil: Run.Ends tells
	Took   time.Duration
}

// Blocks generates. It is the one loop of all generation. yield gets each row's own new tokens of a
// call, and whether these are the last; an error comes without tokens and is the last thing too.
// Where yield returns false, it ends.
func (r *Run) Blocks(ctx context.Context, b Batch, yield func(fresh [][]int32, over bool, err error) bool) {
	var fresh [][]int32
	first, err := b.First(ctx)
	if err == nil && first.Steps > 0 {
		fresh = r.take(first)
	}
	for {
		over := err != nil || len(r.Rows[0]) >= r.Limit || !slices.Contains(r.Done, false)
		if !yield(fresh, over, err) || over {
			return
		}
		fresh = nil
		if err = ctx.Err(); err == nil {
			fresh, err = r.more(ctx, b)
		}
	}
}

// more calls the loop once.
func (r *Run) more(ctx context.Context, b Batch) ([][]int32, error) {
	wanted := r.Limit - len(r.Rows[0])
	if err := r.makeRoom(ctx, b, wanted); err != nil {
		return nil, err
	}
	out, err := b.Decode(ctx, min(r.Pace.Next(), wanted, b.Room()))
	if err != nil {
		return nil, err
	}
	r.Pace.Measured(out.Steps, out.Took)
	return r.take(out), nil
}

// makeRoom grows a full cache, and has the graph for the next size compiled before the cache is
// full.
func (r *Run) makeRoom(ctx context.Context, b Batch, wanted int) error {
	if b.Room() >= wanted || b.Room() > b.Capacity()/4 {
		return nil
	}
	larger := NextCapacity(b.Capacity(), b.Capacity()-b.Room()+wanted)
	if err := b.Prepare(larger); err != nil {
		return err
	}
	if b.Room() > 0 {
		return nil
	}
	return b.Grow(ctx, larger)
}

// Newest is each row's newest token.
func (r *Run) Newest() []int32 {
	newest := slices.Clone(r.Before)
	if len(r.Rows[0]) > 0 {
		newest = make([]int32, len(r.Rows))
		for i, row := range r.Rows {
			newest[i] = row[len(row)-1]
		}
	}
	return newest
}

// take adds new tokens to the rows, and returns those that are the rows' own. Where all rows have
// ended, they are as long as the longest of them: a row may end here before the device knows it.
func (r *Run) take(made Decoded) [][]int32 {
	fresh := make([][]int32, len(r.Rows))
	for i := range r.Rows {
		for j := range made.Steps {
			token := made.Tokens[j*len(r.Rows)+i]
			own := !r.Done[i] && token >= 0
			if !own {
				token = r.Pad
			}
			r.Rows[i] = append(r.Rows[i], token)
			if own { // else it is padding
				fresh[i] = append(fresh[i], token)
				r.Lengths[i]++
				r.Done[i] = r.Ends != nil && r.Ends(i, token)
			}
		}
		if made.Done != nil {
			r.Done[i] = made.Done[i]
		}
	}
	if longest := slices.Max(r.Lengths); !slices.Contains(r.Done, false) {
		for i, row := range r.Rows {
			r.Rows[i] = row[:min(len(row), longest)]
		}
	}
	return fresh
}
