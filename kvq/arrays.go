package kvq

import (
	"fmt"
	"slices"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/kvq/internal/codes"
	"github.com/kvqbook/kvqbook/kvq/internal/numbers"
)

// role says what an array of the state is, for counting bytes and for filling an empty cache.
type role int

const (
	roleLength role = iota // slots filled so far, of all rows or of each
	roleStart              // padding of each row
	roleNext               // index of the oldest token not coded yet
	roleUsed               // slots for codes in use
	roleIndex              // which token a slot holds
	roleExact              // full precision: the full cache, or sinks and window
	roleCodes
	roleScales
	roleTokenScales // of tokens, beside those of channels
	roleZeros
	roleMetric       // what feedback knows of the queries of each row
	roleSharedMetric // of queries and outputs, for all rows
)

// codeIndexName is the array that names the token in each code slot.
const codeIndexName = "codeIndex"

// array describes one array of the state.
type array struct {
	name  string // "layer0.key.codes": used in files and messages
	role  role
	shape shapes.Shape
	// tokens is the axis that grows with the capacity; negative: none.
	tokens int
	// heads is the axis of key/value heads, which may be folded with others: heads are its major
	// part. Negative: none.
	heads int
}

// rows is the axis of the batch; negative: none.
func (a array) rows() int {
	switch a.role {
	case roleLength:
		return a.shape.Rank() - 1 // one for all rows, or one a row
	case roleCodes, roleScales, roleTokenScales, roleZeros:
		return 1
	case roleSharedMetric:
		return -1
	}
	return 0
}

// rowView is an array of the state with an axis of its own for rows.
type rowView struct {
	dims []int
	// axes; tokens is negative where none grows with the capacity, rows where all share one array
	rows, tokens int
}

// byRow splits rows from heads where the array has one axis for both.
func (a array) byRow(s Shape) rowView {
	v := rowView{a.shape.Dimensions, a.rows(), a.tokens}
	if a.role == roleExact && a.shape.Rank() == 3 { // [K*B, C, D]
		v = rowView{[]int{s.KVHeads, s.Batch, v.dims[1], v.dims[2]}, 1, 2}
	}
	return v
}

// at are the places where a row (int32 scalar) begins.
func (v rowView) at(row *Node) []*Node {
	at := make([]*Node, len(v.dims))
	for i := range at {
		at[i] = gx.Scalar(row.Graph(), dtypes.Int32, 0)
	}
	if v.rows >= 0 {
		at[v.rows] = row
	}
	return at
}

// take is one row of x: dims with 1 row, or all of what rows share.
func (v rowView) take(x, row *Node) *Node {
	size := slices.Clone(v.dims)
	if v.rows >= 0 {
		size[v.rows] = 1
	}
	return gx.DynamicSlice(Reshape(x, v.dims...), v.at(row), size)
}

// put writes one row, as take gives it, into x.
func (v rowView) put(x, values, row *Node) *Node {
	return Reshape(DynamicUpdateSlice(Reshape(x, v.dims...), values, v.at(row)), dims(x)...)
}

// empty is what arrays of a role hold in a cache without tokens.
func (p *Plan) empty(r role) int {
	switch r {
	case roleIndex:
		return -1
	case roleNext:
		return p.sinks
	}
	return 0
}

// arrays lists the state, in the order of [Cache.Nodes]. It is not to be changed.
func (p *Plan) arrays() []array {
	if p.state != nil {
		return p.state
	}
	return p.listArrays()
}

// listArrays makes the list. It is the one place that knows the order.
func (p *Plan) listArrays() []array {
	s := p.shape
	fixed := func(name string, r role, dims ...int) array {
		return array{name: name, role: r, shape: shapes.Make(dtypes.Int32, dims...), tokens: -1, heads: -1}
	}
	length := fixed("length", roleLength)
	if s.OwnLengths {
		length = fixed("length", roleLength, s.Batch)
	}
	out := []array{length, fixed("start", roleStart, s.Batch)}
	if !p.config.Quantized() {
		for layer := range s.Layers {
			for _, side := range s.sides() {
				shape := shapes.Make(s.DType, s.KVHeads*s.Batch, s.Capacity, side.dim) // [K*B, C, D]
				out = append(out, array{name: fmt.Sprintf("layer%d.%s", layer, side.name), role: roleExact, shape: shape, tokens: 1, heads: 0})
			}
		}
		return out
	}
	out = append(out, fixed("next", roleNext, s.Batch), fixed("used", roleUsed, s.Batch))
	codeIndex := fixed(codeIndexName, roleIndex, s.Batch, p.codeSlots)
	codeIndex.tokens = 1
	out = append(out, codeIndex)
	out = append(out, fixed("exactIndex", roleIndex, s.Batch, p.exactSlots()))
	for layer := range p.layers {
		out = append(out, p.layerArrays(layer)...)
	}
	return out
}

// roleOf says what the arrays of blocks are.
var roleOf = map[codes.Kind]role{
	codes.KindCodes: roleCodes, codes.KindScales: roleScales, codes.KindTokens: roleTokenScales, codes.KindZeros: roleZeros,
}

// side is keys or values.
type side struct {
	name string
	dim  int // elements of a head
}

func (s Shape) sides() []side { return []side{{"keys", s.HeadDim}, {"values", s.valueDim()}} }

// layerArrays are those of one layer of a quantized cache.
func (p *Plan) layerArrays(layer int) []array {
	var out []array
	s, l := p.shape, p.layers[layer]
	for _, side := range s.sides() {
		exact := shapes.Make(s.DType, s.Batch, s.KVHeads, p.exactSlots(), side.dim)
		out = append(out, array{name: fmt.Sprintf("layer%d.exact.%s", layer, side.name), role: roleExact, shape: exact, tokens: -1, heads: 1})
	}
	for _, side := range []struct {
		name   string
		format codes.Format
	}{{"key", l.key}, {"value", l.value}} {
		for _, a := range side.format.Arrays(s.Batch, s.KVHeads, p.codeSlots, s.DType) {
			name := fmt.Sprintf("layer%d.%s.%s", layer, side.name, a.Kind)
			out = append(out, array{name: name, role: roleOf[a.Kind], shape: a.Shape, tokens: 0, heads: 2})
		}
	}
	metric := func(side string, dim int, ofRow bool) {
		a := array{name: fmt.Sprintf("layer%d.%s.metric", layer, side), role: roleSharedMetric, shape: numbers.PackedFactor(dim, s.KVHeads), tokens: -1, heads: 0}
		if ofRow {
			a.role, a.shape, a.heads = roleMetric, numbers.PackedFactor(dim, s.Batch, s.KVHeads), 1
		}
		out = append(out, a)
	}
	if l.key.Feedback {
		metric("key", s.HeadDim, !p.config.FeedbackKey.shared())
	}
	if l.value.Feedback {
		metric("value", s.valueDim(), false)
	}
	return out
}

// exactSlots is E = S + W.
func (p *Plan) exactSlots() int { return p.sinks + p.windowSlots }

// HeadAxes says for each array of the state, in the order of [Cache.Nodes], along which axis it is
// cut when key/value heads are sharded over several devices: device i of n gets the i-th of n equal
// pieces, which hold the i-th of n equal runs of heads and nothing of other heads. -1 is an array
// that every device has whole.
func (p *Plan) HeadAxes() []int {
	var axes []int
	for _, a := range p.arrays() {
		axes = append(axes, a.heads)
	}
	return axes
}
