package generate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
)

// counter is a Batch of two rows whose tokens count up; row 0 ends with token 9.
type counter struct {
	run           *Run
	made          int // tokens of each row
	slots, room   int
	first, device bool // the first token comes alone; the batch itself tells which rows have ended
	log           []string
	failAt        int
}

func (c *counter) Capacity() int { return c.slots }
func (c *counter) Room() int     { return c.room }
func (c *counter) Prepare(capacity int) error {
	c.log = append(c.log, fmt.Sprint("prepare ", capacity))
	return nil
}
func (c *counter) Grow(_ context.Context, capacity int) error {
	c.log = append(c.log, fmt.Sprint("grow ", capacity))
	c.slots, c.room = capacity, c.room+capacity-c.slots
	return nil
}

func (c *counter) First(context.Context) (made Decoded, err error) {
	if c.first {
		c.made++
		made = Decoded{Steps: 1, Tokens: []int32{0, 100}}
	}
	return made, nil
}

func (c *counter) Decode(_ context.Context, n int) (Decoded, error) {
	c.log = append(c.log, fmt.Sprintf("decode %d after %v", n, c.run.Newest()))
	if n > c.room || n < 1 {
		return Decoded{}, fmt.Errorf("%d tokens into %d slots", n, c.room)
	}
	if c.failAt > 0 && c.made >= c.failAt {
		return Decoded{}, errors.New("failed")
	}
	c.room -= n
	made := Decoded{Steps: n}
	for range n {
		token := int32(c.made)
		if c.device && token > 9 {
			token = -1
		}
		made.Tokens = append(made.Tokens, token, int32(100+c.made))
		c.made++
	}
	if c.device {
		made.Done = []bool{c.made > 9, false}
	}
	return made, nil
}

func TestRun(t *testing.T) {
	ends := func(_ int, token int32) bool { return token == 9 }
	for _, c := range []struct {
		name       string
		batch      counter
		ends       func(int, int32) bool
		limit, own int // own: of row 0
		log        []string
	}{
		{"at once", counter{first: true, slots: 100, room: 100}, ends, 5, 5, []string{"decode 4 after [0 100]"}},
		{"the first with the others", counter{slots: 100, room: 100}, ends, 5, 5, []string{"decode 4 after [-7 -8]", "decode 1 after [3 103]"}},
		{"a row ends", counter{first: true, slots: 100, room: 100}, ends, 14, 10, []string{"decode 4 after [0 100]", "decode 9 after [4 104]"}},
		{"a row ends on the device", counter{first: true, device: true, slots: 100, room: 100}, nil, 20, 10,
			[]string{"decode 4 after [0 100]", "decode 15 after [4 104]"}},
		{"it grows", counter{first: true, slots: 8, room: 3}, ends, 9, 9,
			[]string{"decode 3 after [0 100]", "prepare 16", "grow 16", "decode 5 after [3 103]"}},
		{"the next size is prepared", counter{first: true, slots: 16, room: 4}, ends, 9, 9,
			[]string{"prepare 32", "decode 4 after [0 100]", "prepare 32", "grow 32", "decode 4 after [4 104]"}},
	} {
		run := NewRun(2, c.limit)
		run.Pace, run.Ends, run.Before, run.Pad = Pace{Most: 128}, c.ends, []int32{-7, -8}, 77
		c.batch.run = &run
		var own []int32
		var last bool
		run.Blocks(context.Background(), &c.batch, func(fresh [][]int32, over bool, err error) bool {
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
			if last = over; fresh != nil {
				own = append(own, fresh[0]...)
			}
			return true
		})
		want := make([]int32, c.own)
		for i := range want {
			want[i] = int32(i)
		}
		if !slices.Equal(own, want) || !last || run.Lengths[0] != c.own || run.Lengths[1] != c.limit {
			t.Errorf("%s: row 0 got %v (last: %v), lengths %v, want %v and lengths of %d and %d", c.name, own, last, run.Lengths, want, c.own, c.limit)
		}
		if !slices.Equal(c.batch.log, c.log) {
			t.Errorf("%s: %q, want %q", c.name, c.batch.log, c.log)
		}
		for i, token := range run.Rows[0][c.own:] {
			if c.batch.device && token != 77 {
				t.Errorf("%s: padding %d is %d, want 77", c.name, i, token)
			}
		}
	}
}

// A failure, a context and a break end a generation, with what was made before.
func TestRunEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	for name, stop := range map[string]func() bool{"break": func() bool { return false }, "context": func() bool { cancel(); return true }, "failure": func() bool { return true }} {
		run := NewRun(2, 50)
		run.Pace = Pace{Fixed: 2, Most: 128}
		b := counter{run: &run, first: true, slots: 100, room: 100, failAt: 3}
		var failure error
		calls := 0
		run.Blocks(ctx, &b, func(_ [][]int32, over bool, err error) bool {
			failure = err
			calls++
			if over != (err != nil) {
				t.Errorf("%s: over %v with error %v", name, over, err)
			}
			return len(run.Rows[0]) < 3 || stop()
		})
		if len(run.Rows[0]) != 3 || (failure == nil) != (name == "break") || (name == "break") != (calls == 2) {
			t.Errorf("%s: %d tokens, %d calls, error %v", name, len(run.Rows[0]), calls, failure)
		}
		ctx, cancel = context.WithCancel(context.Background())
	}
	cancel()
}
