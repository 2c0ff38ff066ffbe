package kvq

// HeadAxes says for each array of the state, in the order of [Cache.Nodes], along which axis it is cut
// when key/value heads are sharded over several devices: device i of n gets the i-th of n equal
// pieces, which hold the i-th of n equal runs of heads and nothing of other heads. -1 is an array that
// every device has whole.
func (p *Plan) HeadAxes() []int {
	var axes []int
	for _, a := range p.arrays() {
		axes = append(axes, a.heads)
	}
	return axes
}
