package kvq

import (
	"github.com/pkg/errors"
)

// HeadAxes says for each array of the state, in the order of [Cache.Nodes], along which axis it is cut when key/value heads are dealt out
// to several devices: device i of n gets the i-th of n equal pieces, which hold the i-th of n equal runs of heads and nothing of other
// heads. -1 is an array that every device has whole.
func (p *Plan) HeadAxes() []int {
	// The axis that is n times as long when there are n times as many heads.
	s := p.shape
	s.KVHeads *= 2
	more, err := New(p.config, s)
	if err != nil {
		panic(errors.WithMessage(err, "kvq.Plan.HeadAxes: a bug, twice as many heads are as good")) // neither check looks at their number
	}
	twice := more.arrays()
	axes := make([]int, len(twice))
	for i, a := range p.arrays() {
		axes[i] = -1
		for axis, n := range a.shape.Dimensions {
			if twice[i].shape.Dim(axis) != n {
				axes[i] = axis
			}
		}
	}
	return axes
}
