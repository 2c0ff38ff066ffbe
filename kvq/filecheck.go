package kvq

import (
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/kvqbook/kvqbook/internal/usererr"
)

// checkState refuses counters and indices that no cache of this plan can have. A file's digest says
// that its bytes are those that were written, not who wrote them, and the steps that follow loop
// over what the counters say.
func (p *Plan) checkState(state []*tensors.Tensor) error {
	capacity := p.shape.Capacity
	c := stateChecker{}
	var length []int32 // of all rows, or of each
	// in each row, below 0 while only a part of its padding came
	tokens := make([]int, p.shape.Batch)
	for i, a := range p.arrays() {
		switch a.role {
		case roleLength, roleStart, roleNext, roleUsed, roleIndex:
		default:
			continue
		}
		values, err := int32s(state[i])
		if err != nil {
			return err
		}
		columns := len(values) / max(1, a.rowsIn(p.shape))
		for j, v := range values {
			row, v := j/max(1, columns), int(v)
			switch a.role {
			case roleLength:
				c.check(a.name, v, 0, capacity)
				length = values
			case roleStart:
				c.check(a.name, v, 0, capacity)
				tokens[row] = int(length[min(row, len(length)-1)]) - v
			case roleNext:
				// What is neither sink nor coded lies in the window.
				c.check(a.name, v, max(0, tokens[row]-p.windowSlots), max(p.sinks, tokens[row]))
			case roleUsed:
				c.check(a.name, v, 0, p.codeSlots)
			case roleIndex:
				// Padding that came token by token has indices below 0.
				c.check(a.name, v, -max(1, capacity), max(0, tokens[row])-1)
			}
		}
		if c.err != nil {
			return c.err
		}
	}
	return nil
}

// rowsIn is how many rows an array of counters or indices has.
func (a array) rowsIn(s Shape) int {
	if a.rows() < 0 {
		return 1
	}
	return s.Batch
}

// stateChecker keeps the first refusal.
type stateChecker struct{ err error }

func (c *stateChecker) check(name string, got, low, high int) {
	if c.err == nil && (got < low || got > high) {
		c.err = usererr.New("array %s: want %d to %d, got %d: not a state of this cache", name, low, high, got)
	}
}

func int32s(x *tensors.Tensor) ([]int32, error) {
	if x.Shape().IsScalar() {
		return []int32{tensors.ToScalar[int32](x)}, nil
	}
	return tensors.CopyFlatData[int32](x)
}
