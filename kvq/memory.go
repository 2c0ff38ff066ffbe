package kvq

import (
	"github.com/gomlx/compute/shapes"
	"github.com/pkg/errors"
)

// Memory is the bytes of a cache, by part.
type Memory struct {
	Codes  int64 `json:"codes"`
	Scales int64 `json:"scales"` // those of tokens too
	Zeros  int64 `json:"zeros"`
	Window int64 `json:"window"` // recent tokens in full precision
	Sinks  int64 `json:"sinks"`  // first tokens in full precision
	Full   int64 `json:"full"`   // keys and values of a full-precision cache
	Index  int64 `json:"index"`  // which token lies where, lengths: int32
	// Metric is what feedback knows of the queries of each row: as much, however long it is.
	// SharedMetric is what it knows for all rows, as a part of a model would. See [Feedback].
	Metric       int64 `json:"metric,omitempty"`
	SharedMetric int64 `json:"shared_metric,omitempty"`
}

// Total is the sum of the parts: the bytes of all arrays of the state.
func (m Memory) Total() int64 {
	return m.Codes + m.Scales + m.Zeros + m.Window + m.Sinks + m.Full + m.Index + m.Metric + m.SharedMetric
}

// Plus adds part by part.
func (m Memory) Plus(o Memory) Memory {
	return Memory{
		Codes: m.Codes + o.Codes, Scales: m.Scales + o.Scales, Zeros: m.Zeros + o.Zeros, Window: m.Window + o.Window,
		Sinks: m.Sinks + o.Sinks, Full: m.Full + o.Full, Index: m.Index + o.Index, Metric: m.Metric + o.Metric,
		SharedMetric: m.SharedMetric + o.SharedMetric,
	}
}

// Memory predicts the bytes of the cache from its plan, before anything is allocated. [Measure]
// gives what tensors really take; the two are equal.
func (p *Plan) Memory() Memory {
	var m Memory
	for _, a := range p.arrays() {
		m.add(p, a, int64(a.shape.ByteSize()))
	}
	return m
}

// Measure counts the bytes of a live state, in the order of [Cache.Nodes]: state holds anything
// with a shape, such as tensors.
func Measure[T shapes.HasShape](p *Plan, state []T) (Memory, error) {
	var m Memory
	want := p.arrays()
	if len(state) != len(want) {
		return m, errors.Errorf("kvq.Measure: %d arrays, the state of this cache has %d", len(state), len(want))
	}
	for i, a := range want {
		if a.shape.Rank() != state[i].Shape().Rank() {
			return m, errors.Errorf("kvq.Measure: array %d (%s) is %s, want %s", i, a.name, state[i].Shape(), a.shape)
		}
		m.add(p, a, int64(state[i].Shape().ByteSize()))
	}
	return m, nil
}

func (m *Memory) add(p *Plan, a array, bytes int64) {
	switch a.role {
	case roleCodes:
		m.Codes += bytes
	case roleScales, roleTokenScales:
		m.Scales += bytes
	case roleZeros:
		m.Zeros += bytes
	case roleMetric:
		m.Metric += bytes
	case roleSharedMetric:
		m.SharedMetric += bytes
	case roleExact:
		if !p.config.Quantized() {
			m.Full += bytes
			return
		}
		sinks := bytes * int64(p.sinks) / int64(p.exactSlots())
		m.Sinks += sinks
		m.Window += bytes - sinks
	default:
		m.Index += bytes
	}
}

// BitsPerValue is what one coded key or value costs, scales and zero points included, keys and
// values and layers averaged; window, sinks, indices and metrics apart. For a full-precision cache
// it is the width of its dtype.
func (p *Plan) BitsPerValue() float64 {
	if !p.config.Quantized() {
		return float64(8 * p.shape.DType.Size())
	}
	m := p.Memory()
	values := int64(p.shape.Layers) * int64(p.shape.Batch) * int64(p.shape.KVHeads) * int64(p.codeSlots) * int64(p.shape.HeadDim+p.shape.valueDim())
	return 8 * float64(m.Codes+m.Scales+m.Zeros) / float64(values)
}

// BitsPerValueIn is BitsPerValue and, beside it, what a row keeps of its prompt ([Memory].Metric),
// spread over a row of so many tokens. What all rows share is not in it.
func (p *Plan) BitsPerValueIn(tokens int) float64 {
	s := p.shape
	values := int64(tokens) * int64(s.Batch) * int64(s.Layers) * int64(s.KVHeads) * int64(s.HeadDim+s.valueDim())
	return p.BitsPerValue() + 8*float64(p.Memory().Metric)/float64(values)
}

// LayerBits are the bits of a code of a layer's keys and of its values; 0 in a full-precision
// cache.
func (p *Plan) LayerBits(layer int) (key, value int) {
	if !p.config.Quantized() {
		return 0, 0
	}
	l := p.layers[layer]
	return l.key.Bits, l.value.Bits
}
