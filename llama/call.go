package llama

import (
	"fmt"
	"runtime"

	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/tensors"
	"golang.org/x/sync/errgroup"
)

// callOne is [computation.call] on one device, beside GoMLX's own way: that makes tensors of the
// results one after the other, some calls of the plugin each. A prompt with a quantized cache has
// hundreds, in the time of which the device has nothing to do.
func (c *computation) callOne(inputs []any) ([]sharded, error) {
	if len(inputs) != len(c.in) {
		return nil, fmt.Errorf("%d inputs for a graph of %d", len(inputs), len(c.in))
	}
	buffers, donate := make([]compute.Buffer, len(inputs)), make([]bool, len(inputs))
	var host []int // those that have to be copied to the device
	for i, x := range inputs {
		var err error
		switch x := x.(type) {
		case sharded:
			buffers[i], err = c.buffer(i, x.parts[0])
		case donated:
			donate[i] = true
			if err = c.checkShape(i, x.parts[0]); err == nil {
				buffers[i], err = x.parts[0].DonateBuffer(c.on.backend, 0)
			}
		default:
			host = append(host, i)
		}
		if err != nil {
			return nil, err
		}
	}
	err := inParallel(len(host), func(j int) (err error) {
		i := host[j]
		t, ok := inputs[i].(*tensors.Tensor)
		if ok {
			buffers[i], err = c.buffer(i, t)
			return err
		}
		if t, err = tensors.FromAnyValue(inputs[i]); err != nil {
			return err
		}
		donate[i] = true // nobody else has it
		if err = c.checkShape(i, t); err == nil {
			buffers[i], err = t.DonateBuffer(c.on.backend, 0)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	made, err := c.graph.Executable().Execute(buffers, donate, 0)
	if err != nil {
		return nil, err
	}
	out := make([]sharded, len(made))
	err = inParallel(len(made), func(i int) error {
		t, err := tensors.FromBuffer(made[i])
		out[i] = sharded{parts: []*tensors.Tensor{t}, axis: c.axis(i)}
		return err
	})
	if err != nil {
		free(out...)
		return nil, err
	}
	return out, nil
}

func (c *computation) buffer(i int, t *tensors.Tensor) (compute.Buffer, error) {
	if err := c.checkShape(i, t); err != nil {
		return nil, err
	}
	return t.Buffer(c.on.backend, 0)
}

// checkShape refuses an input that the graph was not compiled for.
func (c *computation) checkShape(i int, t *tensors.Tensor) error {
	if !t.Shape().Equal(c.in[i]) {
		return fmt.Errorf("input %d is %s, want %s", i, t.Shape(), c.in[i])
	}
	return nil
}

// inParallel calls do for 0 to n-1, a run of them in each of some threads. It returns the first
// error; the other threads end their runs.
func inParallel(n int, do func(i int) error) error {
	threads := min(n, runtime.GOMAXPROCS(0), 8)
	var group errgroup.Group
	for thread := range threads {
		group.Go(func() error {
			for i := n * thread / threads; i < n*(thread+1)/threads; i++ {
				if err := do(i); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}
