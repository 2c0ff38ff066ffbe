package kvq_test

import (
	"encoding/binary"
	"fmt"
	"math"
	"testing"

	"github.com/gomlx/compute/dtypes/bfloat16"
	"github.com/gomlx/compute/dtypes/float16"
	"github.com/gomlx/gomlx/core/tensors"
	. "github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/kvq/internal/codes"
	"github.com/kvqbook/kvqbook/kvq/internal/numbers"
)

// The state of a cache read in plain Go, from the descriptions of the layouts in codes.go,
// window.go, planes.go, words.go and scale.go: what attention must see, derived without the graph
// code that decodes.

// place says where a cache keeps a token.
type place byte

const (
	inCodes  place = 'c'
	inWindow place = 'w'
	inSinks  place = 's'
)

// heldToken is one token of one row as a layer of a cache holds it.
type heldToken struct {
	place place
	slot  int // in its array
	// keys and values are what attention sees, [K][D].
	keys, values [][]float64
	// stepKeys and stepValues are the distances of two neighbouring codes, [K][D]; nil for exact
	// tokens.
	stepKeys, stepValues [][]float64
	// raw is everything stored of a coded token: codes, scales and zero points of keys and values.
	// Equal raw, equal token.
	raw string
}

// hostArray is an array of the state in plain Go.
type hostArray struct {
	dims   []int
	floats []float64 // numbers; of bytes, their values
}

func (a hostArray) at(index ...int) float64 {
	flat := 0
	for i, x := range index {
		flat = flat*a.dims[i] + x
	}
	return a.floats[flat]
}

func hostArrayOf(t testing.TB, x *tensors.Tensor) hostArray {
	t.Helper()
	a := hostArray{dims: x.Shape().Dimensions}
	x.MustConstFlatData(func(flat any) {
		switch v := flat.(type) {
		case []float32:
			a.floats = elements(v, func(x float32) float64 { return float64(x) })
		case []float16.Float16:
			a.floats = elements(v, func(x float16.Float16) float64 { return float64(x.Float32()) })
		case []bfloat16.BFloat16:
			a.floats = elements(v, func(x bfloat16.BFloat16) float64 { return float64(x.Float32()) })
		case []int32:
			a.floats = elements(v, func(x int32) float64 { return float64(x) })
		case []int8:
			a.floats = elements(v, func(x int8) float64 { return float64(x) })
		case []uint8:
			a.floats = elements(v, func(x uint8) float64 { return float64(x) })
		case []uint16:
			a.floats = elements(v, func(x uint16) float64 { return float64(x) })
		case []uint32:
			a.floats = elements(v, func(x uint32) float64 { return float64(x) })
		default:
			t.Fatalf("an array of %T in the state of a cache", flat)
		}
	})
	return a
}

func elements[T any](x []T, convert func(T) float64) []float64 {
	out := make([]float64, len(x))
	for i, v := range x {
		out[i] = convert(v)
	}
	return out
}

// hostState is a whole state, its arrays by name.
type hostState struct {
	plan   *Plan
	arrays map[string]hostArray
}

func readState(t testing.TB, plan *Plan, state []*tensors.Tensor) hostState {
	t.Helper()
	h := hostState{plan, map[string]hostArray{}}
	for i, a := range plan.Arrays() {
		h.arrays[a.Name] = hostArrayOf(t, state[i])
	}
	return h
}

// length is how many slots a row fills: all rows as many, or each its own.
func (h hostState) length(row int) int {
	lengths := h.arrays["length"].floats
	return int(lengths[min(row, len(lengths)-1)])
}

func (h hostState) start(row int) int { return int(h.arrays["start"].at(row)) }

// tokens returns what a layer holds of a row, by index of the token in the row. It fails the test
// where a token is held twice.
func (h hostState) tokens(t testing.TB, layer, row int) map[int]*heldToken {
	t.Helper()
	p, out := h.plan, map[int]*heldToken{}
	add := func(index int, tok *heldToken) {
		if out[index] != nil {
			t.Fatalf("layer %d, row %d: token %d is held twice, in %c and %c", layer, row, index, out[index].place, tok.place)
		}
		out[index] = tok
	}
	if !p.Config().Quantized() {
		for slot := h.start(row); slot < h.length(row); slot++ {
			tok := &heldToken{place: inWindow}
			tok.keys, tok.values = h.exactToken(fmt.Sprintf("layer%d", layer), row, slot)
			add(slot-h.start(row), tok)
		}
		return out
	}
	for slot := range p.Inside().ExactSlots {
		index := int(h.arrays["exactIndex"].at(row, slot))
		if index < 0 {
			continue
		}
		tok := &heldToken{place: inWindow, slot: slot}
		if slot < p.Inside().Sinks {
			tok.place = inSinks
		}
		tok.keys, tok.values = h.exactToken(fmt.Sprintf("layer%d.exact", layer), row, slot)
		add(index, tok)
	}
	blocks := map[[3]int]*decodedBlock{}
	for slot := range p.Inside().CodeSlots {
		index := int(h.arrays["codeIndex"].at(row, slot))
		if index < 0 {
			continue
		}
		tok, l := &heldToken{place: inCodes, slot: slot}, p.Inside().Layers[layer]
		for head := range p.Shape().KVHeads {
			for i, s := range []codes.Format{l.Key, l.Value} {
				at := [3]int{slot / codes.BlockTokens, head, i}
				if blocks[at] == nil {
					blocks[at] = h.codedBlock(s, layer, row, head, at[0])
				}
				b, token := blocks[at], slot%codes.BlockTokens
				tok.raw += b.raw[token]
				if s.Keys {
					tok.keys, tok.stepKeys = append(tok.keys, b.values[token]), append(tok.stepKeys, b.steps[token])
				} else {
					tok.values, tok.stepValues = append(tok.values, b.values[token]), append(tok.stepValues, b.steps[token])
				}
			}
		}
		add(index, tok)
	}
	return out
}

func (h hostState) exactToken(prefix string, row, slot int) (keys, values [][]float64) {
	read := func(a hostArray) (out [][]float64) {
		for head := range h.plan.Shape().KVHeads {
			out = append(out, nil)
			for d := range a.dims[len(a.dims)-1] {
				if len(a.dims) == 3 { // rows and heads are one axis
					out[head] = append(out[head], a.at(head*h.plan.Shape().Batch+row, slot, d))
					continue
				}
				out[head] = append(out[head], a.at(row, head, slot, d))
			}
		}
		return out
	}
	return read(h.arrays[prefix+".keys"]), read(h.arrays[prefix+".values"])
}

// decodedBlock is keys or values of one block and head, [32][D].
type decodedBlock struct {
	values, steps [codes.BlockTokens][]float64
	raw           [codes.BlockTokens]string
}

// codedBlock decodes keys or values of one block of one row and head; steps are the sizes of a code
// step for each element.
func (h hostState) codedBlock(s codes.Format, layer, row, head, block int) *decodedBlock {
	part := func(name string) hostArray { return h.arrays[fmt.Sprintf("layer%d.%s.%s", layer, sideName(s), name)] }
	packed, scales, zeros := part("codes"), part("scales"), part("zeros")
	dim := s.HeadDim
	_, lanes := s.Matrix()
	// what the codes stand for, before scale and zero point; a lane is a token of keys, a channel
	// of values
	number := make([][]float64, lanes)
	for lane := range number {
		rows, _ := s.Matrix()
		column := make([]uint8, rows)
		for i := range column {
			if s.Packed {
				column[i] = hostCode(s, packed, block, row, head, i, lane)
			} else {
				column[i] = uint8(int(packed.at(block, row, head, i, lane)))
			}
		}
		for _, c := range column {
			number[lane] = append(number[lane], hostNumber(s, c))
		}
	}
	out := &decodedBlock{}
	for token := range codes.BlockTokens {
		loud := 1.0 // the scale of the token
		if s.TokenScales {
			loud = hostScale(Scale8, part("tokenScales").at(block, row, head, 0, token))
		}
		values, steps, raw := make([]float64, dim), make([]float64, dim), make([]byte, 0, 16*dim)
		keep := func(x float64) { raw = binary.LittleEndian.AppendUint64(raw, math.Float64bits(x)) }
		for d := range dim {
			at := []int{block, row, head, d / (dim / s.Groups()), token}
			if s.PerChannel {
				at = []int{block * codes.BlockTokens / s.Group, row, head, d}
			}
			if s.Keys {
				values[d] = number[token][d]
			} else {
				values[d] = number[d][token]
			}
			keep(values[d])
			steps[d] = hostScale(s.Spec.Scales, scales.at(at...))
			keep(steps[d])
			values[d] *= steps[d]
			if s.HasZeros() {
				values[d] += hostZero(s, zeros.at(at...), steps[d])
				keep(zeros.at(at...))
			}
			keep(loud)
			values[d] *= loud
			steps[d] *= loud
		}
		if s.Rotate {
			values = rotated(values)
		}
		out.values[token], out.steps[token], out.raw[token] = values, steps, string(raw)
	}
	return out
}

// sideName is what messages and arrays call keys or values.
func sideName(s codes.Format) string {
	if s.Keys {
		return "key"
	}
	return "value"
}

// hostCode reads the code of a row and lane from its words: plane after plane, each with its first
// row in the lowest bits.
func hostCode(s codes.Format, packed hostArray, block, row, head, i, lane int) (code uint8) {
	l := s.Words()
	first, low := 0, 0
	for _, w := range codes.Widths {
		if w.Bits != s.Bits {
			continue
		}
		for _, width := range w.Planes {
			perWord := l.Bits / width
			at := i % l.Rows
			word := uint64(packed.at(block, row, head*l.Parts+i/l.Rows, first+at/perWord, lane))
			code |= uint8(word>>(at%perWord*width)&(1<<width-1)) << low
			first, low = first+l.Rows/perWord, low+width
		}
	}
	return code
}

// hostNumber is what a code stands for in steps, before the zero point.
func hostNumber(s codes.Format, code uint8) float64 {
	switch s.Spec.Quantizer {
	case numbers.Symmetric:
		return float64(code) - math.Ldexp(1, s.Bits-1)
	case numbers.Float8:
		return e4m3(code)
	case numbers.Int8:
		return float64(int8(code))
	}
	return float64(code)
}

// e4m3 reads a float8: sign, 4 bits of exponent with bias 7, 3 of mantissa.
func e4m3(code uint8) float64 {
	exponent, mantissa := int(code>>3&15), float64(code&7)
	value := math.Ldexp(8+mantissa, exponent-7-3)
	if exponent == 0 {
		value = math.Ldexp(mantissa, -6-3)
	}
	if code > 127 {
		return -value
	}
	return value
}

func hostScale(f ScaleFormat, stored float64) float64 {
	if f != Scale8 {
		return stored
	}
	if exponent, mantissa := int(stored)>>4, int(stored)&15; exponent > 0 {
		return math.Ldexp(float64(16+mantissa), exponent-9-4)
	}
	return math.Ldexp(stored, -8-4)
}

// hostZero is what a stored zero point stands for.
func hostZero(s codes.Format, stored, scale float64) float64 {
	if s.Spec.Scales != Scale8 {
		return stored
	}
	return (stored - 128) * math.Ldexp(scale, -max(0, 6-s.Bits))
}

// rotated multiplies by the orthonormal Walsh-Hadamard matrix, in blocks of the largest power of
// two, by sums and differences in float64.
func rotated(x []float64) []float64 {
	n := len(x) & -len(x)
	out := append([]float64{}, x...)
	for half := 1; half < n; half *= 2 {
		for i := range out {
			if i&half == 0 {
				out[i], out[i+half] = out[i]+out[i+half], out[i]-out[i+half]
			}
		}
	}
	for i := range out {
		out[i] /= math.Sqrt(float64(n))
	}
	return out
}
