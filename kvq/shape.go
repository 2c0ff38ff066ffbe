package kvq

import (
	"reflect"

	"github.com/gomlx/compute/dtypes"
	"github.com/kvqbook/kvqbook/internal/usererr"
)

// Shape says what a cache is for. All fields down to DType are required.
type Shape struct {
	Layers  int // decoder layers
	Batch   int // B, rows
	KVHeads int // K, key/value heads
	HeadDim int // D, elements of a head

	// Capacity is the number of token slots of a row, padding included. A [Session] grows a full
	// cache; in a graph, attention past it is NaN: grow the cache first, see [Plan.Grow].
	Capacity int

	// DType of keys and values: float32, float16 or bfloat16.
	DType dtypes.DType

	// SlidingWindow limits attention to the newest so many tokens, the current one included, as in
	// Mistral; 0 = no limit.
	SlidingWindow int

	// Attention is how the model makes scores of queries and keys; its zero value is Llama's way.
	Attention Attention

	// OwnLengths gives each row a length of its own (a ragged batch, as in continuous batching): a
	// row may rest, be cut, emptied and given to another prompt while the others go on, see
	// [Cache.NewTokens] and [Cache.Insert]. Without it all rows grow together, and a new token of
	// all rows is written at once.
	OwnLengths bool
}

// Equal tells whether two shapes are the same.
func (s Shape) Equal(other Shape) bool { return reflect.DeepEqual(s, other) }

func (s Shape) validate() error {
	for _, f := range []struct {
		name  string
		value int
	}{{"Layers", s.Layers}, {"Batch", s.Batch}, {"KVHeads", s.KVHeads}, {"HeadDim", s.HeadDim}, {"Capacity", s.Capacity}} {
		if f.value < 1 {
			return usererr.New("kvq.Shape.%s: want at least 1, got %d", f.name, f.value)
		}
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
