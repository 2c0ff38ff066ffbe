package models

import (
	"math"

	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/internal/kvqhook"
	"github.com/kvqbook/kvqbook/kvq"
)

// token is what a cache holds of one token of a row, [K, D] each; codes nil for an exact one.
type token struct{ keys, values, keyCodes, valueCodes []float32 }

// reader reads what states of one plan hold.
type reader struct {
	plan *kvq.Plan
	exec *Exec
}

func newReader(plan *kvq.Plan) (*reader, error) {
	b, err := backend()
	if err != nil {
		return nil, err
	}
	exec, err := NewExec(b, func(in []*Node) []*Node {
		held := kvqhook.Contents(plan, in)
		out := []*Node{held.ExactIndex}
		if held.CodeIndex != nil {
			out = append(out, held.CodeIndex)
		}
		for _, l := range held.Layers {
			out = append(out, l.Keys.Exact, l.Values.Exact)
			if held.CodeIndex != nil {
				out = append(out, l.Keys.Decoded, l.Values.Decoded, l.Keys.Codes, l.Values.Codes)
			}
		}
		return out
	})
	return &reader{plan, exec}, err
}

// read returns what each layer holds of each row, by index of the token in the row.
func (r *reader) read(state []*tensors.Tensor) ([][]map[int]token, error) {
	var args []any
	for _, x := range state {
		args = append(args, x)
	}
	out, err := r.exec.Exec(args...)
	if err != nil {
		return nil, err
	}
	exact, coded, out := out[0], (*tensors.Tensor)(nil), out[1:]
	each := 2
	if r.plan.Config().Quantized() {
		coded, out, each = out[0], out[1:], 6
	}
	shape := r.plan.Shape()
	layers := make([][]map[int]token, shape.Layers)
	for i := range layers {
		layers[i] = make([]map[int]token, shape.Batch)
		for row := range layers[i] {
			layers[i][row] = map[int]token{}
		}
		arrays := out[i*each : (i+1)*each]
		r.take(layers[i], exact, arrays[:2], func(x [][]float32) token { return token{keys: x[0], values: x[1]} })
		if coded != nil {
			r.take(layers[i], coded, arrays[2:], func(x [][]float32) token { return token{x[0], x[1], x[2], x[3]} })
		}
	}
	return layers, nil
}

// take adds the tokens that index [B, slots] names, out of arrays [B, K, slots, D].
func (r *reader) take(rows []map[int]token, index *tensors.Tensor, arrays []*tensors.Tensor, of func(x [][]float32) token) {
	shape := r.plan.Shape()
	slots := index.Shape().Dim(1)
	names := tensors.MustCopyFlatData[int32](index)
	flat := make([][]float32, len(arrays))
	for i, x := range arrays {
		flat[i] = tensors.MustCopyFlatData[float32](x)
	}
	for row := range rows {
		for slot := range slots {
			name := names[row*slots+slot]
			if name < 0 {
				continue
			}
			parts := make([][]float32, len(flat))
			for i := range flat {
				for head := range shape.KVHeads {
					at := ((row*shape.KVHeads+head)*slots + slot) * shape.HeadDim
					parts[i] = append(parts[i], flat[i][at:at+shape.HeadDim]...)
				}
			}
			rows[row][int(name)] = of(parts)
		}
	}
}

// differing counts the elements of two arrays that are not equal bit by bit.
func differing(a, b []float32) (n int) {
	if len(a) != len(b) {
		return max(len(a), len(b))
	}
	for i := range a {
		if math.Float32bits(a[i]) != math.Float32bits(b[i]) {
			n++
		}
	}
	return n
}

// sameTokens says where two rows hold different things, "" where they are equal bit by bit.
func sameTokens(a, b map[int]token) string {
	if len(a) != len(b) {
		return "another number of tokens"
	}
	for i, one := range a {
		other, there := b[i]
		if !there || (one.keyCodes == nil) != (other.keyCodes == nil) {
			return "other tokens are coded"
		}
		if differing(one.keyCodes, other.keyCodes)+differing(one.valueCodes, other.valueCodes) > 0 {
			return "other codes"
		}
		if differing(one.keys, other.keys)+differing(one.values, other.values) > 0 {
			return "other keys or values"
		}
	}
	return ""
}
