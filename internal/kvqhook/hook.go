// Package kvqhook reaches what package kvq keeps from its users and this module's benchmarks need.
package kvqhook

import (
	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/graph"
)

// Synthetic returns the state of a cache that holds tokens made-up tokens in every row, with as
// many of them coded as a real one of that length would have: a context of any length without the
// time to read it. Rows of their own lengths hold one token less than the row before. plan is a
// *kvq.Plan; package kvq sets the function.
var Synthetic func(plan any, g *graph.Graph, tokens int) []*graph.Node

// Contents shows what a state holds, in one layout for all caches. plan is a *kvq.Plan; package kvq
// sets the function.
var Contents func(plan any, state []*graph.Node) Held

// CodedOfPrompt is how many tokens of a row are kept as codes after a prompt of so many, which
// kvq.Coded reads from the device. Where some came one by one there are no more. plan is a
// *kvq.Plan; package kvq sets the function.
var CodedOfPrompt func(plan any, tokens int) int

// FusesPrompt reports whether attention over a prompt of so many tokens is fused in all layers of a
// graph of one device: no scores of it are in memory. heads are those of queries. plan is a
// *kvq.Plan; package kvq sets the function.
var FusesPrompt func(plan any, backend compute.Backend, heads, tokens int) bool

// WholeText is a layer, a kvq.LayerCache, that reads texts of one length at once, each token seeing
// as codes of those before it what a cache would hold as codes when the tokens behind a prompt of
// so many come one by one. Keys and values that are not to be codes are exact. It attends once;
// plan, a *kvq.Plan of one layer, gives how it is coded. CheckWholeText refuses what cannot be read
// at once. Package kvq sets the functions.
var (
	WholeText      func(plan any, g *graph.Graph, prompt int, keys, values bool) any
	CheckWholeText func(plan any, prompt int) error
)

// FlushedApart is a cache whose window gives up no blocks in a step by itself, for graphs whose
// caller sees to that. plan is a *kvq.Plan; package kvq sets the function.
var FlushedApart func(plan any) Apart

// Apart is what there is of such a cache. Its state is that of the plan that it was made from.
type Apart struct {
	Plan any // *kvq.Plan of the steps
	// Full is how many tokens wait in a window that has to be flushed before the row's next step; 0
	// where none ever has to: then there are no functions.
	Full int
	// Room tells whether all rows can take a token, bool scalar. done, bool [B], are rows that have
	// ended: those need no room where rows have lengths of their own. Elsewhere they go on with
	// padding.
	Room func(state []*graph.Node, done *graph.Node) *graph.Node
	// Most is the most tokens of a row that are neither sinks nor coded, from the first three
	// arrays of the state (see Layer.Shared); below 0 while only sinks are filled. done is as in
	// Room; nil: no row has ended.
	Most func(length, start, next []int32, done []bool) int
	// Flush moves the oldest tokens from windows to codes, where these are full: the state before
	// to the state after. Rows that rest keep what they have.
	Flush func(state []*graph.Node, resting *graph.Node) []*graph.Node
}

// OneLayer is a layer of a cache as a cache of its own, for graphs of one layer each. plan is a
// *kvq.Plan; package kvq sets the function.
var OneLayer func(plan any, layer int) Layer

// Layer is one layer of a cache. Its window gives up no blocks by itself, see FlushedApart.
type Layer struct {
	Plan any // *kvq.Plan
	// Kind is comparable: graphs of layers of equal kind are the same. Uncoded is that of graphs in
	// which no token is in codes, see CodedOfPrompt: they do the same with any arrays of codes.
	Kind, Uncoded any
	// Codes are, of the layer's own arrays, the first one of codes and the first one behind them.
	Codes [2]int
	// Shared is how many arrays of the state all layers have in common. They come first in the
	// state of the whole cache too, the arrays of the layers follow one after the other. Every
	// layer of a step makes the same new ones of them. The first are the slots filled so far, int32
	// (of each row, where rows have lengths of their own), and the padding of each row, int32 [B];
	// in a quantized cache then the index of the oldest token that is neither sink nor coded, int32
	// [B].
	Shared int
}

// Held is what a cache holds, as nodes of a graph.
type Held struct {
	// CodeIndex int32 [B, C] and ExactIndex int32 [B, E] name the token in each slot, counted from
	// the row's first, -1 for none. CodeIndex is nil for a full-precision cache.
	CodeIndex, ExactIndex *graph.Node
	Layers                []HeldLayer
}

// HeldLayer is a layer's keys and values.
type HeldLayer struct{ Keys, Values HeldSide }

// HeldSide is keys or values, all float32. Codes and Decoded are nil for a full-precision cache.
type HeldSide struct {
	Codes   *graph.Node // [B, K, C, D]: codes in units of the scale, before the zero point
	Decoded *graph.Node // [B, K, C, D]: what they stand for
	Exact   *graph.Node // [B, K, E, D]
}
