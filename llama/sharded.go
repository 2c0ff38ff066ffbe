package llama

import (
	"fmt"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes/gotype"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/tensors"
)

// sharded is a tensor as the devices hold it: one part each, in the order of the devices.
type sharded struct {
	parts []*tensors.Tensor
	axis  int // along which it is cut; or whole
}

// layout says how the tensor lies.
func (s sharded) layout() layout {
	shape := s.parts[0].Shape()
	if s.axis != whole {
		shape = shape.Clone()
		shape.Dimensions[s.axis] *= len(s.parts)
	}
	return layout{shape, s.axis}
}

// bytes is the memory of all devices that it takes.
func (s sharded) bytes() (sum int64) {
	for _, t := range s.parts {
		sum += t.ByteSize()
	}
	return sum
}

// free gives device memory back at once, without waiting for the garbage collector.
func free(list ...sharded) {
	for _, s := range list {
		for _, t := range s.parts {
			if t != nil {
				_ = t.FinalizeAll() // only fails when it is gone already
			}
		}
	}
}

// read copies what every device has to the host.
func read[T gotype.Supported](s sharded) ([]T, error) {
	return tensors.CopyFlatData[T](s.parts[0])
}

// readAll copies a tensor to the host that is cut along its first axis.
func readAll[T gotype.Supported](s sharded) (all []T, err error) {
	for _, part := range s.parts {
		values, err := tensors.CopyFlatData[T](part)
		if err != nil {
			return nil, err
		}
		all = append(all, values...)
	}
	return all, nil
}

// donated is a sharded tensor that a call consumes, to write its successor in its place. It is gone
// afterwards, also when the call fails.
type donated sharded

// place moves a tensor to the devices, cut along axis, and takes it over, also when it fails.
func (d *devices) place(t *tensors.Tensor, axis int) (s sharded, err error) {
	s.axis = axis
	if d.n == 1 {
		s.parts = []*tensors.Tensor{t}
		if err := t.ToDevice(d.backend, 0); err != nil {
			return s, fmt.Errorf("moving a weight %s to the device: %w", t.Shape(), err)
		}
		return s, nil
	}
	defer func() {
		_ = t.FinalizeAll() // only fails when it is gone already
		if err != nil {
			free(s)
			err = fmt.Errorf("moving a weight %s to %d devices: %w", t.Shape(), d.n, err)
		}
	}()
	shape := d.part(layout{t.Shape(), axis})
	failed := t.ConstBytes(func(all []byte) {
		var buffer []byte
		for i := range d.n {
			piece := all
			if axis != whole {
				piece, buffer = cut(all, t.Shape(), axis, i, d.n, buffer)
			}
			var part *tensors.Tensor
			// It returns when the data was copied.
			if part, err = tensors.FromRaw(d.backend, compute.DeviceNum(i), shape, piece); err != nil {
				return
			}
			s.parts = append(s.parts, part)
		}
	})
	if err == nil {
		err = failed
	}
	return s, err
}

// cut takes the i-th of n equal pieces along an axis of a tensor's bytes: a part of them where the
// piece lies together, else a copy in buffer, which is made larger where it has to be.
func cut(all []byte, shape shapes.Shape, axis, i, n int, buffer []byte) (piece, bufferAfter []byte) {
	rows := 1
	for _, d := range shape.Dimensions[:axis] {
		rows *= d
	}
	row := len(all) / rows
	width := row / n
	if rows == 1 {
		return all[i*width : (i+1)*width], buffer
	}
	if cap(buffer) < rows*width {
		buffer = make([]byte, rows*width)
	}
	buffer = buffer[:rows*width]
	for r := range rows {
		copy(buffer[r*width:(r+1)*width], all[r*row+i*width:])
	}
	return buffer, buffer
}
