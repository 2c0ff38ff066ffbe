package llama

import (
	"slices"

	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/kvqhook"
)

// Layers whose codes have other bits are compiled one by one, which takes seconds each. Where no
// token is in codes they do the same: of a prompt that is shorter than what stays exact, and in
// steps of a cache that has no room for more. So their graphs have no arrays of codes there, and
// one is compiled for all of them. Between the calls the host has these arrays, all of them empty.

// withoutCodes reports whether the graphs of layers do without codes. They have them where that
// saves no graph, and on a GPU, where nothing was measured.
func (l *stepGraphs) withoutCodes() bool {
	tokens := l.key.capacity
	if l.key.fresh {
		tokens = l.key.tokens
	}
	saves := func(one kvqhook.Layer) bool { return one.Kind != l.ones[0].Kind && one.Uncoded == l.ones[0].Uncoded }
	return l.g.model.byLayers() && slices.ContainsFunc(l.ones, saves) && kvqhook.CodedOfPrompt(l.plan, tokens) == 0
}

// kind tells layers apart whose graphs are not the same.
func (l *stepGraphs) kind(one kvqhook.Layer) any {
	if l.uncoded {
		return one.Uncoded
	}
	return one.Kind
}

// cutCodes cuts a layer's own arrays in those that its graph has and those that it does without. An
// array is anything that stands for one.
func cutCodes[T any](l *stepGraphs, layer int, own []T) (given, codes []T) {
	if !l.uncoded {
		return own, nil
	}
	at := l.ones[layer].Codes
	return slices.Concat(own[:at[0]], own[at[1]:]), own[at[0]:at[1]]
}

// joinCodes is the way back from cutCodes.
func joinCodes[T any](l *stepGraphs, layer int, given, codes []T) []T {
	if !l.uncoded {
		return given
	}
	at := l.ones[layer].Codes[0]
	return slices.Concat(given[:at], codes, given[at:])
}

// standIns are what a graph without codes has in their place. Nothing reads their elements.
func standIns(g *Graph, codes []layout) (list []*Node) {
	for _, c := range codes {
		list = append(list, gx.Zeros(g, c.shape))
	}
	return list
}

// noCodes are the arrays of codes of a layer that its prompt's graph does without: as in a cache
// without tokens. They are on the host until somebody needs them.
func (l *stepGraphs) noCodes(layer int) (list []sharded) {
	_, own, _ := l.planOf(layer)
	_, codes := cutCodes(l, layer, own)
	for _, c := range codes {
		list = append(list, sharded{parts: []*tensors.Tensor{tensors.FromShape(c.shape)}, axis: c.axis})
	}
	return list
}
