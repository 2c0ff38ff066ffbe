package generate

import (
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.

	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/pick"
)

const (
	// MaxBlock is the most tokens of one call of a loop, and the size of its buffers. How many a
	// call really makes is an input, so that one compilation serves all.
	MaxBlock = 128
	// LogitsBlock is the same for loops that keep logits, whose buffers are V times as large.
	LogitsBlock = 16
)

// Loop is the decode loop: each iteration feeds every row's newest token through the model and
// picks the next one, with the cache as state that XLA updates in place.
type Loop struct {
	Most int // N, the most iterations
	// Feed is the model: each row's newest token [B] (int32) and the cache's state, to the logits
	// [B, V] (float32) and the state after.
	Feed func(token *Node, state []*Node) (logits *Node, after []*Node)
	// FeedRows is Feed that also gets which rows have ended before, done [B] bool; nil: Feed is
	// used.
	FeedRows func(token, done *Node, state []*Node) (logits *Node, after []*Node)
	// Next is each row's next token [B] (int32) and whether the row has ended with it [B] (bool);
	// step is an int32 scalar, done [B] bool tells which rows had ended before.
	Next func(logits, step, done *Node) (token, ended *Node)
	// History is state of Next, which NextWith gets and returns as well; nil: Next is used.
	History  []*Node
	NextWith func(logits, step, done *Node, history []*Node) (token, ended *Node, after []*Node)
	// Keep is V where the logits of each token are kept, else 0.
	Keep int
	// MarkEnded writes -1 among the new tokens where a row had ended before.
	MarkEnded bool
	// FirstEnd ends the loop when a row ends, not only when all have.
	FirstEnd bool
	// Room tells, from the cache's state and which rows have ended, whether the cache can take a
	// token, bool scalar: otherwise the loop ends, and the caller sees to it. nil: it always can.
	Room func(state []*Node, done *Node) *Node
	// While makes the loop; nil: gx.Loop.
	While func(initial []*Node, cond func([]*Node) *Node, body func([]*Node) []*Node) []*Node
}

// Made is what the loop has made.
type Made struct {
	State  []*Node
	Tokens *Node // [N, B] int32, the first Steps rows
	Steps  *Node // int32 [1]: iterations
	Sound  *Node // [B] bool: the row's logits were numbers all along
	Done   *Node // [B] bool: the row has ended
	Logits *Node // [N, B, V] float32 that the tokens were picked from; nil where none are kept
}

// Build makes the loop. It ends after limit (int32 [1]) iterations, when all rows have ended, or
// when there is no Room. token [B] (int32) is each row's newest token, done [B] (bool) tells which
// rows have ended.
func (l Loop) Build(limit, token, done *Node, state []*Node) Made {
	graph, n, b := token.Graph(), l.Most, token.Shape().Dim(0)
	zero := func() *Node { return gx.Scalar(graph, dtypes.Int32, 0) }
	const stepAt, limitAt, tokenAt, doneAt, soundAt, tokensAt, cacheAt = 0, 1, 2, 3, 4, 5, 6 // places in the loop's state
	keptAt := cacheAt + len(state)
	initial := []*Node{zero(), Reshape(limit), token, done,
		gx.Ones(graph, shapes.Make(dtypes.Bool, b)), gx.Zeros(graph, shapes.Make(dtypes.Int32, n, b))}
	initial = append(initial, state...)
	if l.Keep > 0 {
		initial = append(initial, gx.Zeros(graph, shapes.Make(dtypes.Float32, n, b, l.Keep)))
	}
	historyAt := len(initial)
	initial = append(initial, l.History...)
	if l.FirstEnd {
		initial = append(initial, done)
	}
	feed := l.FeedRows
	if feed == nil {
		feed = func(token, _ *Node, state []*Node) (*Node, []*Node) { return l.Feed(token, state) }
	}
	while := l.While
	if while == nil {
		while = gx.Loop
	}
	out := while(initial,
		func(st []*Node) *Node {
			on := And(LessThan(st[stepAt], st[limitAt]), Not(gx.LogicalAll(st[doneAt])))
			if l.Room != nil {
				on = And(on, l.Room(st[cacheAt:cacheAt+len(state)], st[doneAt]))
			}
			if l.FirstEnd {
				on = And(on, Not(gx.LogicalAny(LogicalXor(st[doneAt], st[len(st)-1]))))
			}
			return on
		},
		func(st []*Node) []*Node {
			logits, cache := feed(st[tokenAt], st[doneAt], st[cacheAt:cacheAt+len(state)])
			var next, ended *Node
			history := st[historyAt : historyAt+len(l.History)]
			if len(history) == 0 {
				next, ended = l.Next(logits, st[stepAt], st[doneAt])
			} else {
				next, ended, history = l.NextWith(logits, st[stepAt], st[doneAt], history)
			}
			written := next
			if l.MarkEnded {
				written = Where(st[doneAt], gx.Fill(next.Graph(), next.Shape(), -1), next)
			}
			row := DynamicUpdateSlice(st[tokensAt], Reshape(written, 1, b), []*Node{st[stepAt], zero()})
			after := append([]*Node{gx.AddScalar(st[stepAt], 1), st[limitAt], next, ended, And(st[soundAt], pick.AreNumbers(logits)), row}, cache...)
			if l.Keep > 0 {
				kept := st[keptAt]
				after = append(after, DynamicUpdateSlice(kept, ExpandLeftToRank(logits, 3), []*Node{st[stepAt], zero(), zero()}))
			}
			after = append(after, history...)
			if l.FirstEnd {
				after = append(after, st[len(st)-1])
			}
			return after
		})
	made := Made{State: out[cacheAt : cacheAt+len(state)], Tokens: out[tokensAt], Steps: Reshape(out[stepAt], 1), Sound: out[soundAt], Done: out[doneAt]}
	if l.Keep > 0 {
		made.Logits = out[keptAt]
	}
	return made
}

// Continue fills the token of rows that had ended before with pad (int32 [1]) and says which rows
// have ended now: done [B] bool before, ending [B] bool the tokens that end a row.
func Continue(token, done, pad *Node, ending func(token *Node) *Node) (next, ended *Node) {
	next = Where(done, gx.BroadcastToDims(Reshape(gx.Inside(pad)), token.Shape().Dim(0)), token)
	return next, Or(done, ending(next))
}
