package oracle

import "math"

// Tensor is an array of numbers in row-major order.
type Tensor struct {
	Shape []int
	Data  []float64
}

// NewTensor returns zeros of the given shape.
func NewTensor(shape ...int) Tensor {
	n := 1
	for _, d := range shape {
		n *= d
	}
	return Tensor{shape, make([]float64, n)}
}

// Row returns the last axis at the given indices of the others. It shares memory with t.
func (t Tensor) Row(index ...int) []float64 {
	at := 0
	for i, x := range index {
		at = at*t.Shape[i] + x
	}
	d := t.Shape[len(t.Shape)-1]
	return t.Data[at*d : at*d+d]
}

// Attention is softmax attention with grouped query heads, in float64: see [Scores.Attention]. A
// query sees keys up to its own token, not those before start[b], which are padding, and where
// window is not 0 only the newest window ones. Scores are scaled by 1/sqrt(D).
func Attention(q, k, v Tensor, start []int, window int) Tensor {
	return Scores{Start: start, Window: window}.Attention(q, k, v)
}

// Scores is how a model makes scores, and what its queries see. Queries and keys are counted by
// their slots, padding included.
type Scores struct {
	Start  []int // padding of each row
	Window int   // newest tokens that a query sees; 0: no limit

	Scale   float64   // 0: 1/sqrt(D)
	SoftCap float64   // cap·tanh(score/cap); 0: none
	Slopes  []float64 // of each query head: slope·(place of the query - place of the key) is taken off
	// Place is where in its row a token stands, for slopes and windows; nil: its slot.
	Place func(row, slot int) int

	Cross bool // keys are of another sequence, and all of them are seen
	// Sees takes the place of causality and of the window, where it is not nil.
	Sees func(row, head, query, key int) bool
	// Bias is added to scores, where it is not nil.
	Bias func(row, head, query, key int) float64
}

// Attention is softmax attention with grouped query heads, in float64.
//
//	q [B, H, t, D]: the newest t of T tokens, or with Cross any; k [B, K, T, D], v [B, K, T, E]
//	-> [B, H, t, E]
//
// Query head h reads key/value head h·K/H. A query that sees nothing (it is padding) gives 0.
func (s Scores) Attention(q, k, v Tensor) Tensor {
	b, h, t, d := q.Shape[0], q.Shape[1], q.Shape[2], q.Shape[3]
	kv, tokens := k.Shape[1], k.Shape[2]
	scale := s.Scale
	if scale == 0 {
		scale = 1 / math.Sqrt(float64(d))
	}
	out := NewTensor(b, h, t, v.Shape[3])
	for row := range b {
		for head := range h {
			group := head * kv / h
			for i := range t {
				at := tokens - t + i
				var weights []float64
				var seen []int
				for j := s.Start[row]; j < tokens; j++ {
					if !s.sees(row, head, at, j) {
						continue
					}
					seen = append(seen, j)
					weights = append(weights, s.score(dot(q.Row(row, head, i), k.Row(row, group, j))*scale, row, head, at, j))
				}
				result := out.Row(row, head, i)
				for j, w := range Softmax(weights) {
					for c, x := range v.Row(row, group, seen[j]) {
						result[c] += w * x
					}
				}
			}
		}
	}
	return out
}

func (s Scores) sees(row, head, query, key int) bool {
	switch {
	case s.Sees != nil:
		return s.Sees(row, head, query, key)
	case s.Cross:
		return true
	}
	return key <= query && (s.Window == 0 || s.distance(row, query, key) < s.Window)
}

func (s Scores) distance(row, query, key int) int {
	if s.Place == nil {
		return query - key
	}
	return s.Place(row, query) - s.Place(row, key)
}

func (s Scores) score(product float64, row, head, query, key int) float64 {
	if s.SoftCap > 0 {
		product = s.SoftCap * math.Tanh(product/s.SoftCap)
	}
	if len(s.Slopes) > 0 {
		product -= s.Slopes[head] * float64(s.distance(row, query, key))
	}
	if s.Bias != nil {
		product += s.Bias(row, head, query, key)
	}
	return product
}

// Softmax returns exp(x) / Σ exp(x), nothing for nothing.
func Softmax(x []float64) []float64 {
	top, sum := math.Inf(-1), 0.0
	for _, v := range x {
		top = max(top, v)
	}
	out := make([]float64, len(x))
	for i, v := range x {
		out[i] = math.Exp(v - top)
		sum += out[i]
	}
	for i := range out {
		out[i] /= sum
	}
	return out
}

func dot(a, b []float64) (sum float64) {
	for i := range a {
		sum += a[i] * b[i]
	}
	return sum
}
