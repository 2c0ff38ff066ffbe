package kvq

import (
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
)

// Cache is what attention needs of a key/value cache inside a graph. The full-precision cache and
// the quantized one both satisfy it, so a model does not know which of the two it runs on.
//
// A step of a model goes through its layers in order, each of which appends to its [LayerCache] and
// attends to it; then comes Advance:
//
//	for i, layer := range layers {
//		x = layer(x, cache.Layer(i))
//	}
//	cache.Advance()
//
// The nodes of a Cache belong to one graph function: to carry it through a While or from call to
// call, flatten it with Nodes and rebuild it with [Plan.From].
//
// All methods build graph operations and panic with an error of package exceptions on wrong shapes.
// A Cache is not safe for concurrent use.
type Cache interface {
	// Nodes returns the state in the order of [Plan.Shapes].
	Nodes() []*Node

	// Length returns the slots filled so far, padding included: an int32 scalar, equal for all
	// rows, or [B] where rows have lengths of their own ([Shape].OwnLengths).
	Length() *Node

	// Positions returns the rotary positions [B, t] (int32) of the next t tokens: slot minus the
	// row's padding, at least 0.
	Positions(t int) *Node

	// NewTokens says how many tokens each row has in the step of t columns that comes: counts [B]
	// int32, 0 to t, or bool: all t or none. A row's tokens are the last of its columns; what
	// stands before them is padding. A row of none rests: it neither grows nor changes, and what
	// attention gives it has no meaning. Without this call every column of every row is a token.
	//
	// It is for rows with lengths of their own ([Shape].OwnLengths), comes before Positions and the
	// first Append of a step, and holds until Advance. The prompt that starts a cache has its
	// padding from [Plan.Init].
	NewTokens(counts *Node)

	// Layer returns one layer, for the step under way.
	Layer(layer int) LayerCache

	// Through returns decoder(Layer(layer), x, inputs) and may put it into an XLA function, which
	// equal layers share: the result is the same, and XLA compiles it faster.
	//
	// x is [B, t, ...] for the t new tokens; decoder appends and attends once each and returns the
	// layer's output. inputs are the layer's weights and all else that decoder needs: it may use no
	// other nodes than its arguments. It has to do the same for all layers whose inputs have equal
	// shapes.
	Through(layer int, x *Node, inputs []*Node, decoder Decoder) *Node

	// Mask changes what the new tokens of the step under way see, until Advance: for a prefix that
	// sees itself both ways, drafts that are a tree, rows of several texts, a bias of the model.
	// Call it before the layers of the step attend; it is for all of them.
	Mask(m Masks)

	// Advance ends a step: the new tokens become history, and the window gives up what it no longer
	// holds.
	Advance()

	// Crop forgets the newest n tokens (int32 scalar) of every row, as speculative decoding does
	// with rejected drafts. Where rows have lengths of their own, n may be [B]: so many of each. A
	// row of which more is to be forgotten than there is, or less than nothing, attends to NaN from
	// then on.
	Crop(n *Node)

	// Reset empties the rows that are true in rows, bool [B], their padding too. It is for rows
	// with lengths of their own.
	Reset(rows *Node)

	// Insert puts row i of from in the place of row rows[i] (int32, one for each row of from; each
	// at most once); where rows[i] is no row, it is left out. The padding of from's rows is
	// dropped: an inserted row is as long as it has tokens.
	//
	// It is for rows with lengths of their own: a batch of new prompts is prefilled in a cache of
	// its own, and then takes the places of rows that have ended. from is a cache of the same graph
	// whose plan differs in Batch, OwnLengths and a smaller Capacity at most.
	Insert(rows *Node, from Cache)

	// Reorder makes row i a copy of row rows[i] (int32 [B]), as beam search does. Where one is no
	// row, attention is NaN from then on.
	Reorder(rows *Node)
}

// LayerCache is one layer of a [Cache] in the step under way.
type LayerCache interface {
	// Append adds t new tokens: keys (rotary embedding applied) and values, both [B, K, t, D] (or
	// in the order of [Shape].Layout; values may have another D). t is the same for all layers of a
	// step.
	Append(keys, values *Node)

	// WeighKeys says how much errors of keys matter to the model: keys gives a float32 [K, D, D],
	// symmetric and not negative, for each key/value head; an error e of one of its keys costs
	// eᵀ·keys·e. That is the mean of q·qᵀ over queries q of the head, see [QueryMetric]. Or keys
	// gives what [Plan.PackMetrics] made of it, which a model calls once for all prompts.
	//
	// It is for [Config].FeedbackKey with a metric from outside, such as [FeedbackCalibrated], in
	// the step that starts a cache, between Append and Attend. Elsewhere keys is not called.
	WeighKeys(keys func() *Node)

	// Turn says that the model turns queries and keys by their position (a rotary embedding): by
	// which angles, in radians, the pairs (i, i + D/2) of a head's elements from one position to
	// the next. It may be left out, and changes no result but which codes keys get: what
	// [FeedbackQueries] learns of a prompt's queries then counts for later positions too. Call it
	// before Attend.
	Turn(frequencies []float32)

	// Weigh says how much errors of values matter to the model: values gives a float32
	// [K, D of values, the same], symmetric and not negative, for each key/value head; an error e
	// of one of its values costs eᵀ·values·e. Where attention's output is multiplied by a matrix W,
	// it is the sum of Wᵀ·W over the query heads that read the head.
	//
	// It is for [Config].FeedbackValue, in the step that starts a cache, between Append and Attend.
	// Elsewhere values is not called.
	Weigh(values func() *Node)

	// Attend lets the queries [B, H, t, D] of the tokens just appended look at everything cached
	// and, causally, at one another. It returns [B, H, t, D of values] in the dtype of the queries.
	// H is a multiple of K: query head h reads key/value head h / (H/K). Scores are scaled by
	// 1/sqrt(D), or made as [Shape].Attention says.
	Attend(queries *Node) *Node
}

// Decoder is one decoder layer of a model: x [B, t, ...] to the layer's output. See
// [Cache.Through].
type Decoder func(cache LayerCache, x *Node, inputs []*Node) *Node
