package kvq

import (
	"fmt"
	"math"
	"reflect"
	"strings"

	"github.com/gomlx/compute/dtypes"
	"github.com/kvqbook/kvqbook/internal/usererr"
)

// Shape says what a cache is for. Layers, Batch, KVHeads, HeadDim, Capacity and DType are required.
// Sizes fit 32 bits.
type Shape struct {
	Layers  int // decoder layers, at most 65,536
	Batch   int // B, rows
	KVHeads int // K, key/value heads
	HeadDim int // D, elements of a head of queries, keys and values

	// ValueDim is how many elements a value has, where it is not HeadDim, as in DeepSeek's MLA
	// (DeepSeek-AI 2024, arXiv 2405.04434, section 2.1: 192 and 128); 0 = HeadDim. Where the two
	// differ, the kernel for CUDA does not run: single tokens attend by words.
	ValueDim int

	// Capacity is the number of token slots of a row, padding included. A [Session] grows a full
	// cache; in a graph, attention past it is NaN: grow the cache first, see [Plan.Grow].
	Capacity int

	// DType of keys and values: float32, float16 or bfloat16.
	DType dtypes.DType

	// SlidingWindow limits attention to the newest so many tokens, the current one included, as in
	// Mistral; 0 = no limit.
	SlidingWindow int

	// Layout is the order of axes in which the model hands over queries, keys and values, and gets
	// outputs; empty = BHSD. The cache itself lies the same for both.
	Layout Layout

	// Attention is how the model makes scores of queries and keys; its zero value is Llama's way.
	Attention Attention

	// OwnLengths gives each row a length of its own (a ragged batch, as in continuous batching): a
	// row may rest, be cut, emptied and given to another prompt while the others go on, see
	// [Cache.NewTokens] and [Cache.Insert]. Without it all rows grow together, and a new token of
	// all rows is written at once.
	OwnLengths bool
}

// valueDim is the number of elements of a value.
func (s Shape) valueDim() int {
	if s.ValueDim > 0 {
		return s.ValueDim
	}
	return s.HeadDim
}

// plain is the shape without memory that others hold, and with one way to say the same.
func (s Shape) plain() Shape {
	s.Attention = s.Attention.clone()
	if s.ValueDim == s.HeadDim {
		s.ValueDim = 0
	}
	if s.Layout == BHSD {
		s.Layout = ""
	}
	return s
}

// Equal tells whether two shapes are the same.
func (s Shape) Equal(other Shape) bool { return reflect.DeepEqual(s, other) }

// differences names what of two plans differs, capacities apart.
func differences(got, want *Plan) string {
	var list []string
	if got.config != want.config {
		list = append(list, fmt.Sprintf("%s, want %s", got.config, want.config))
	}
	a, b := reflect.ValueOf(got.shape), reflect.ValueOf(want.shape)
	for i := range a.NumField() {
		name, x, y := a.Type().Field(i).Name, a.Field(i).Interface(), b.Field(i).Interface()
		if name != "Capacity" && !reflect.DeepEqual(x, y) {
			list = append(list, fmt.Sprintf("Shape.%s %v, want %v", name, x, y))
		}
	}
	return strings.Join(list, "; ")
}

// Sizes beyond these would not fit the integers of a graph, or of this package; a plan lists every
// array of every layer.
const (
	maxSize   = math.MaxInt32
	maxLayers = 1 << 16
	maxBytes  = 1 << 60
)

// checkBytes refuses caches whose bytes no integer could count: with so many exact tokens beside
// those of the capacity.
func (s Shape) checkBytes(exact int) error {
	const most = 4 // bytes of a value
	bytes := most * float64(s.Layers) * float64(s.Batch) * float64(s.KVHeads) * float64(s.HeadDim+s.valueDim()) * float64(s.Capacity+exact)
	if bytes > maxBytes {
		return usererr.New("kvq.Shape: want a cache of less than %d bytes, got %.3g: %d layers, %d rows, %d heads of %d, %d tokens",
			maxBytes, bytes, s.Layers, s.Batch, s.KVHeads, s.HeadDim, s.Capacity)
	}
	return nil
}

func (s Shape) validate() error {
	for _, f := range []struct {
		name  string
		value int
	}{{"Layers", s.Layers}, {"Batch", s.Batch}, {"KVHeads", s.KVHeads}, {"HeadDim", s.HeadDim}, {"Capacity", s.Capacity}} {
		if f.value < 1 {
			return usererr.New("kvq.Shape.%s: want at least 1, got %d", f.name, f.value)
		}
	}
	for _, f := range []struct {
		name        string
		value, most int
	}{{"Layers", s.Layers, maxLayers}, {"Batch", s.Batch, maxSize}, {"KVHeads", s.KVHeads, maxSize}, {"HeadDim", s.HeadDim, maxSize},
		{"ValueDim", s.ValueDim, maxSize}, {"Capacity", s.Capacity, maxSize}, {"SlidingWindow", s.SlidingWindow, maxSize}} {
		if f.value > f.most {
			return usererr.New("kvq.Shape.%s: want at most %d, got %d", f.name, f.most, f.value)
		}
	}
	if s.ValueDim < 0 {
		return usererr.New("kvq.Shape.ValueDim: want 0 (HeadDim) or more, got %d", s.ValueDim)
	}
	if err := s.Layout.validate(); err != nil {
		return err
	}
	if s.SlidingWindow < 0 {
		return usererr.New("kvq.Shape.SlidingWindow: want 0 (no limit) or more, got %d", s.SlidingWindow)
	}
	if err := s.validateAttention(); err != nil {
		return err
	}
	switch s.DType {
	case dtypes.Float32, dtypes.Float16, dtypes.BFloat16:
		return nil
	}
	return usererr.New("kvq.Shape.DType: want float32, float16 or bfloat16, got %s", s.DType)
}
