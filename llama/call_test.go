package llama

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/go-xla/pjrt"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/internal/testbackend"
	"github.com/kvqbook/kvqbook/internal/testlane"
	"github.com/kvqbook/kvqbook/kvq"
)

// withoutCollector switches Go's garbage collector off for a test, that would free buffers too.
func withoutCollector(t *testing.T) {
	t.Helper()
	before := debug.SetGCPercent(-1)
	t.Cleanup(func() { debug.SetGCPercent(before) })
}

// A call that fails frees what was donated to it and what it copied to the device, whatever it
// failed at; what was lent to it stays. So does one that is made: all that is left are its outputs.
func TestCallsFreeWhatTheyTake(t *testing.T) {
	backend := testbackend.XLA(t)
	for n := 1; n <= 2; n++ {
		t.Run(fmt.Sprintf("devices-%d", n), func(t *testing.T) {
			if backend.NumDevices() < n {
				t.Skipf("%d devices wanted, XLA shows %d", n, backend.NumDevices())
			}
			withoutCollector(t)
			on, err := newDevices(backend, n)
			if err != nil {
				t.Fatal(err)
			}
			vector := shapes.Make(dtypes.Float32, 4)
			c, err := on.compile("donated, lent, host, donated", wholes(vector, vector, vector, vector), nil, func(in []*Node) []*Node {
				return []*Node{Add(Add(in[0], in[1]), Add(in[2], in[3])), in[1]}
			})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Free()
			place := func(x any) sharded {
				s, err := on.place(tensors.MustFromAnyValue(x), whole)
				if err != nil {
					t.Fatal(err)
				}
				return s
			}
			ones, three := []float32{1, 1, 1, 1}, []float32{1, 2, 3}
			lent, gone := place(ones), place(ones)
			defer free(lent)
			free(gone)
			right := func(s sharded) sharded { return s }
			for _, x := range []struct {
				what   string
				lent   any
				host   any
				last   func(sharded) sharded
				want   []shapes.Shape // other than the graph has, so that XLA sees the fault and not call
				inputs int            // how many of the four are given
			}{
				{what: "nothing fails", lent: lent, host: ones, last: right, inputs: 4},
				{what: "a host tensor", lent: lent, host: tensors.FromValue(ones), last: right, inputs: 4},
				{what: "an input of three elements", lent: lent, host: three, last: right, inputs: 4},
				{what: "an input that is no tensor", lent: lent, host: errors.New("none"), last: right, inputs: 4},
				{what: "a lent one that is gone", lent: gone, host: ones, last: right, inputs: 4},
				{what: "a donated one that is gone", lent: lent, host: ones, last: func(s sharded) sharded { free(s); return s }, inputs: 4},
				{what: "too few inputs", lent: lent, host: ones, last: right, inputs: 3},
				{what: "XLA refuses", lent: lent, host: []int32{1, 1, 1, 1}, last: right, want: []shapes.Shape{vector, vector, shapes.Make(dtypes.Int32, 4), vector}, inputs: 4},
			} {
				before := pjrt.BuffersAlive()
				inputs := []any{donated(place(ones)), x.lent, x.host, donated(x.last(place(ones)))}
				in := c.in
				if x.want != nil {
					c.in = x.want
				}
				if x.inputs < 4 {
					inputs = slices.Delete(inputs, 1, 2)
				}
				out, err := c.call(inputs...)
				c.in = in
				if fails := x.what != "nothing fails" && x.what != "a host tensor"; fails != (err != nil) {
					t.Errorf("%s: error %v", x.what, err)
				}
				if err == nil {
					if sum, err := read[float32](out[0]); err != nil || !slices.Equal(sum, []float32{4, 4, 4, 4}) {
						t.Errorf("%s: sum %v, %v, want 4s", x.what, sum, err)
					}
				}
				free(out...)
				if left := pjrt.BuffersAlive() - before; left != 0 {
					t.Errorf("%s: %d buffers are left", x.what, left)
				}
			}
			if _, err := read[float32](lent); err != nil {
				t.Errorf("what was lent is gone: %v", err)
			}
		})
	}
}

// endsAfter is a context that ends when it was asked so many times.
type endsAfter struct {
	context.Context
	left int
}

func (c *endsAfter) Err() error {
	if c.left--; c.left < 0 {
		return context.Canceled
	}
	return nil
}

// A step of one layer after the other that ends early, wherever, leaves nothing on the device.
func TestStepsThatEndLeaveNothing(t *testing.T) {
	testlane.Slow(t, "compiles the graphs of a layer")
	g := tinyGenerator(t, "tiny-llama2-gqa", kvq.Config{Backend: kvq.Quanto, NBits: 4, QGroupSize: 16, ResidualLength: 16})
	plan, err := g.Plan(1, 64)
	if err != nil {
		t.Fatal(err)
	}
	l := g.startLayers(plan, 1, false)
	if err := l.Wait(context.Background()); err != nil {
		t.Fatal(err)
	}
	fill := g.startEmpty(plan)
	if err := fill.Wait(context.Background()); err != nil {
		t.Fatal(err)
	}
	withoutCollector(t)
	before := pjrt.BuffersAlive()
	for asked := 0; ; asked++ {
		state, err := g.programs.run(context.Background(), fill, []int32{0})
		if err != nil {
			t.Fatal(err)
		}
		after, logits, err := l.step(&endsAfter{context.Background(), asked}, [][]int32{{1}}, state)
		if err == nil {
			free(logits)
			free(after...)
		} else if !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		if left := pjrt.BuffersAlive() - before; left != 0 {
			t.Fatalf("after a context that ends when asked %d times: %d buffers are left", asked, left)
		}
		if err == nil {
			if asked < len(l.layers) {
				t.Errorf("the context was asked %d times, wanted once a layer at least", asked)
			}
			return
		}
	}
}
