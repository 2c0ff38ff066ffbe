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

// Attention is softmax attention with grouped query heads, in float64.
//
//	q [B, H, t, D]: the newest t of T tokens; k, v [B, K, T, D]; result [B, H, t, D]
//
// Query head h reads key/value head h·K/H. A query sees keys up to its own token, not those before
// start[b], which are padding, and where window is not 0 only the newest window ones. Scores are
// scaled by 1/sqrt(D). A query that sees nothing (it is padding) gives 0.
func Attention(q, k, v Tensor, start []int, window int) Tensor {
	b, h, t, d := q.Shape[0], q.Shape[1], q.Shape[2], q.Shape[3]
	kv, tokens := k.Shape[1], k.Shape[2]
	out := NewTensor(b, h, t, d)
	for row := range b {
		for head := range h {
			for i := range t {
				at := tokens - t + i
				first := start[row]
				if window > 0 {
					first = max(first, at-window+1)
				}
				group := head * kv / h
				weights := make([]float64, 0, at+1)
				for j := first; j <= at; j++ {
					weights = append(weights, dot(q.Row(row, head, i), k.Row(row, group, j))/math.Sqrt(float64(d)))
				}
				result := out.Row(row, head, i)
				for j, w := range Softmax(weights) {
					for c, x := range v.Row(row, group, first+j) {
						result[c] += w * x
					}
				}
			}
		}
	}
	return out
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
