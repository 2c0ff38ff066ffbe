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

	// LayerWindows are sliding windows of layers, one for each, 0 = no limit, in place of
	// [Shape].SlidingWindow: Gemma 2 and gpt-oss alternate, Gemma 3 has one layer without after
	// five with. They are masks: a layer with a window takes no less memory. Empty = SlidingWindow.
	LayerWindows []int `json:",omitempty"`

	// Cross is cross-attention: keys and values are of another sequence, an encoder's output.
	// Append takes them once, in the step that [Plan.Init] begins; queries of any number of tokens
	// attend to all of them, in that step and in later ones, which append nothing. An encoder's
	// padding is mostly on the right: see [PaddingToLeft]. There are no slopes and no windows.
	Cross bool `json:",omitempty"`
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

func (s Shape) validateAttention() error {
	a, kvHeads := s.Attention, s.KVHeads
	finite := func(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }
	switch {
	case !finite(a.Scale):
		return usererr.New("kvq.Attention.Scale: want a finite number (0: 1/sqrt(HeadDim)), got %v", a.Scale)
	case !finite(a.SoftCap) || a.SoftCap < 0:
		return usererr.New("kvq.Attention.SoftCap: want 0 (none) or more, got %v", a.SoftCap)
	case len(a.Slopes)%kvHeads != 0:
		return usererr.New("kvq.Attention.Slopes: want one for each query head, a multiple of the %d key/value heads, got %d", kvHeads, len(a.Slopes))
	}
	for i, slope := range a.Slopes {
		if !finite(slope) || slope < 0 {
			return usererr.New("kvq.Attention.Slopes: want numbers of at least 0, got %v for head %d", slope, i)
		}
	}
	switch n := len(a.LayerWindows); {
	case a.Cross && (len(a.Slopes) > 0 || n > 0 || s.SlidingWindow > 0):
		return usererr.New("kvq.Attention.Cross: want no slopes and no windows, which need tokens of one sequence")
	case n > 0 && n != s.Layers:
		return usererr.New("kvq.Attention.LayerWindows: want one for each of %d layers, got %d", s.Layers, n)
	case n > 0 && s.SlidingWindow > 0:
		return usererr.New("kvq.Attention.LayerWindows: want SlidingWindow 0 beside it, got %d", s.SlidingWindow)
	}
	for layer, w := range a.LayerWindows {
		if w < 0 || w > math.MaxInt32 {
			return usererr.New("kvq.Attention.LayerWindows: want 0 (no limit) or more, got %d for layer %d", w, layer)
		}
	}
	return nil
}

// clone shares no memory with a; what is empty is nil.
func (a Attention) clone() Attention {
	a.Slopes = append([]float64(nil), a.Slopes...)
	a.LayerWindows = append([]int(nil), a.LayerWindows...)
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

// window is a layer's.
func (s Shape) window(layer int) int {
	if len(s.Attention.LayerWindows) > 0 {
		return s.Attention.LayerWindows[layer]
	}
	return s.SlidingWindow
}

// layer is the shape of one layer alone.
func (s Shape) layer(layer int) Shape {
	s.SlidingWindow, s.Attention.LayerWindows = s.window(layer), nil
	s.Layers = 1
	return s
}

// newest are the indices of a step's t tokens, [B, t] int32, by the slots filled before it: see
// stepIndex. Queries of cross-attention have that of the newest token, [B, 1]: they see all.
func (s Shape) newest(start, length, counts *Node, t int) *Node {
	if s.Attention.Cross {
		return attend.TokenIndex(start, gx.AddScalar(length, t-1), 1)
	}
	return stepIndex(start, length, counts, t)
}

// view is what queries of a step see in a layer, by their indices position [B, t] int32.
func (s Shape) view(window int, position *Node, m Masks) attend.View {
	v := attend.View{Position: position, Window: window, Distances: len(s.Attention.Slopes) > 0}
	v.Added, v.All = m.added(), m.Visible != nil
	if m.Tree != nil {
		v = v.Branch(m.Tree)
	}
	return v
}

// prompt is a layer's attention over a prompt that it holds nothing before: queries [B, H, t, D],
// keys and values [B, K, T, D].
func (s Shape) prompt(layer int, queries, keys, values, start *Node, m Masks) *Node {
	g, scores := start.Graph(), s.scores()
	if s.fuses(g.Backend(), gx.Sharing(g), layer, m.any(), queries.Shape(), keys.Shape(), values.Shape()) {
		return scores.FusedPrompt(queries, keys, values, start)
	}
	zero := gx.Scalar(g, dtypes.Int32, 0)
	index := attend.TokenIndex(start, zero, dims(keys)[2])
	position := index
	if s.Attention.Cross {
		position = s.newest(start, zero, nil, dims(keys)[2])
	}
	return scores.Prompt(queries, keys, values, index, s.view(s.window(layer), position, m))
}

// checkSlopes panics where queries have another number of heads than slopes.
func (a Attention) checkSlopes(heads int) {
	if n := len(a.Slopes); n > 0 && n != heads {
		exceptions.Panicf("kvq.Attend: %d query heads, want %d: one for each of kvq.Attention.Slopes", heads, n)
	}
}
