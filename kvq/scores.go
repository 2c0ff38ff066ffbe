package kvq

import (
	"math"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/gomlx/gomlx/support/exceptions"
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/kvq/internal/attend"
)

// Attention is how a model makes scores of queries and keys, where it is not Llama's way:
//
//	score = cap(Scale·q·k) - slope·(position - index)
//	cap(s) = SoftCap·tanh(s/SoftCap)
//
// for a query of index position in its row and a key of index index. The zero value is Llama's way:
// a scale of 1/sqrt(D) and neither cap nor slopes. A model's constants are said here, once; they
// are part of a saved cache.
type Attention struct {
	// Scale is what products of queries and keys are multiplied by; 0 = 1/sqrt(HeadDim). Gemma 2
	// has 1/sqrt(query_pre_attn_scalar), T5 has 1.
	Scale float64 `json:",omitempty"`

	// SoftCap bounds scores to less than so much, before masks: Gemma 2's
	// attn_logit_softcapping (Gemma Team 2024, arXiv 2408.00118, section 2); 0 = none.
	SoftCap float64 `json:",omitempty"`

	// Slopes are ALiBi's (Press et al. 2021, arXiv 2108.12409, section 3), one for each query head:
	// see [ALiBiSlopes]. A model that has them rotates nothing. Empty = none.
	Slopes []float64 `json:",omitempty"`
}

// ALiBiSlopes are the slopes of ALiBi for so many query heads: 2^(-8i/n) for i = 1..n where n is a
// power of two. For other numbers, those of the largest power of two below, and every second one of
// the next, as in the authors' code and in BLOOM.
func ALiBiSlopes(heads int) []float64 {
	power := 1
	for 2*power <= heads {
		power *= 2
	}
	var out []float64
	for i := 1; i <= power && len(out) < heads; i++ {
		out = append(out, math.Exp2(-8*float64(i)/float64(power)))
	}
	for i := 1; len(out) < heads; i += 2 {
		out = append(out, math.Exp2(-4*float64(i)/float64(power)))
	}
	return out
}

func (a Attention) validate(kvHeads int) error {
	finite := func(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }
	switch {
	case !finite(a.Scale):
		return usererr.New("kvq.Attention.Scale: want a finite number (0: 1/sqrt(HeadDim)), got %v", a.Scale)
	case !finite(a.SoftCap) || a.SoftCap < 0:
		return usererr.New("kvq.Attention.SoftCap: want 0 (none) or more, got %v", a.SoftCap)
	case len(a.Slopes)%kvHeads != 0:
		return usererr.New("kvq.Attention.Slopes: want one for each query head, a multiple of the %d key/value heads, got %d", kvHeads, len(a.Slopes))
	}
	for i, s := range a.Slopes {
		if !finite(s) || s < 0 {
			return usererr.New("kvq.Attention.Slopes: want numbers of at least 0, got %v for head %d", s, i)
		}
	}
	return nil
}

// clone shares no memory with a; what is empty is nil.
func (a Attention) clone() Attention {
	a.Slopes = append([]float64(nil), a.Slopes...)
	return a
}

// scores is what package attend is to know of it.
func (s Shape) scores() attend.Scores {
	out := attend.Scores{Scale: s.Attention.Scale, SoftCap: s.Attention.SoftCap, Slopes: s.Attention.Slopes}
	if out.Scale == 0 {
		out.Scale = 1 / math.Sqrt(float64(s.HeadDim))
	}
	return out
}

// view is what queries of a step see, by their indices position [B, t] int32.
func (s Shape) view(position *Node) attend.View {
	return attend.View{Position: position, Window: s.SlidingWindow, Distances: len(s.Attention.Slopes) > 0}
}

// prompt is attention of a prompt over itself: queries [B, H, T, D], keys and values [B, K, T, D].
func (s Shape) prompt(queries, keys, values, start *Node) *Node {
	index := attend.TokenIndex(start, gx.Scalar(start.Graph(), dtypes.Int32, 0), dims(keys)[2])
	return s.scores().Prompt(queries, keys, values, index, s.view(index))
}

// checkSlopes panics where queries have another number of heads than slopes.
func (a Attention) checkSlopes(heads int) {
	if n := len(a.Slopes); n > 0 && n != heads {
		exceptions.Panicf("kvq.Attend: %d query heads, want %d: one for each of kvq.Attention.Slopes", heads, n)
	}
}
