package llama

import (
	"fmt"
	"runtime"

	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/tensors"
	"golang.org/x/sync/errgroup"

	"github.com/kvqbook/kvqbook/internal/gx"
)

// call runs the graph. Inputs are sharded tensors, or values of the host (Go values or tensors)
// that every device gets. The outputs are the caller's, to be freed with free. What is donated is
// gone when call returns, also with an error: its memory is free then.
//
// It is beside GoMLX's own way, that makes tensors of the results one after the other, some calls
// of the plugin each. A prompt with a quantized cache has hundreds, in the time of which the device
// has nothing to do.
func (c *computation) call(inputs ...any) (out []sharded, err error) {
	buffers := make([]compute.Buffer, c.on.n*len(inputs)) // of one device after the other
	donate := make([]bool, len(buffers))
	defer func() {
		if err != nil {
			c.discard(inputs, buffers, donate)
		}
	}()
	if len(inputs) != len(c.in) {
		return nil, fmt.Errorf("%d inputs for a graph of %d", len(inputs), len(c.in))
	}
	var host []int // those that have to be copied to the devices
	for i, x := range inputs {
		var parts []*tensors.Tensor
		give := false
		switch x := x.(type) {
		case sharded:
			parts = x.parts
		case donated:
			parts, give = x.parts, true
		default:
			host = append(host, i)
		}
		for device, t := range parts {
			if err := c.checkShape(i, t); err != nil {
				return nil, err
			}
			at := device*len(inputs) + i
			if donate[at] = give; give {
				buffers[at], err = t.DonateBuffer(c.on.backend, compute.DeviceNum(device))
			} else {
				buffers[at], err = t.Buffer(c.on.backend, compute.DeviceNum(device))
			}
			if err != nil {
				return nil, err
			}
		}
	}
	err = inParallel(len(host), func(j int) error {
		i := host[j]
		t, err := tensors.FromAnyValue(inputs[i]) // itself where it is a tensor
		if err != nil {
			return err
		}
		if err := c.checkShape(i, t); err != nil {
			return err
		}
		for device := range c.on.n {
			at := device*len(inputs) + i
			donate[at] = true // a copy that nobody else has
			if buffers[at], err = t.DonateBuffer(c.on.backend, compute.DeviceNum(device)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if c.on.n > 1 {
		collective.Lock()
		defer collective.Unlock()
	}
	made, err := c.graph.Executable().Execute(buffers, donate, 0)
	if err != nil {
		return nil, err
	}
	return c.results(made)
}

// discard frees what a call that failed has of donated memory.
func (c *computation) discard(inputs []any, buffers []compute.Buffer, donate []bool) {
	for i, b := range buffers {
		if donate[i] {
			gx.Discard(c.on.backend, b)
		}
	}
	for _, x := range inputs {
		if x, ok := x.(donated); ok {
			free(sharded(x)) // those that the call did not come to
		}
	}
}

// results are the outputs of all devices, one device after the other, as sharded tensors.
func (c *computation) results(made []compute.Buffer) ([]sharded, error) {
	n := len(made) / c.on.n
	out := make([]sharded, n)
	for i := range out {
		out[i] = sharded{parts: make([]*tensors.Tensor, c.on.n), axis: c.axis(i)}
	}
	err := inParallel(len(made), func(i int) (err error) {
		out[i%n].parts[i/n], err = tensors.FromBuffer(made[i])
		return err
	})
	if err == nil {
		return out, nil
	}
	for i, b := range made {
		if out[i%n].parts[i/n] == nil {
			gx.Discard(c.on.backend, b)
		}
	}
	free(out...)
	return nil, err
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
