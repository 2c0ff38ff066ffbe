package kvq

import (
	"slices"

	"github.com/gomlx/gomlx/core/graph"

	"github.com/kvqbook/kvqbook/internal/generate"
	"github.com/kvqbook/kvqbook/internal/pick"
	"github.com/kvqbook/kvqbook/internal/usererr"
)

// Generation says how [Session.Generate] and [Batch.Generate] pick tokens and when they stop. It is
// plain data; the zero value makes 20 tokens greedily.
type Generation struct {
	// MaxTokens is how many new tokens a call makes of each row at most; 0 means 20.
	MaxTokens int
	// Stop are the tokens that end a row. The token itself is the row's last.
	Stop []int32
	// Pad is fed to the model in rows that ended before the others, or that rest.
	Pad int32

	// Sample draws tokens at random; false takes the most likely one, of equal ones the lowest.
	Sample bool
	// Temperature divides the logits; 0 means 1.
	Temperature float64
	// TopK samples among the so many most likely tokens; 0 means no limit.
	TopK int
	// TopP samples among the most likely tokens that together hold this probability; 0 and 1 mean
	// no limit.
	TopP float64
	// Seed starts the random numbers, which depend on seed, row and token alone.
	Seed int64

	// Pick chooses the tokens in the place of Sample and the settings below it; nil: it does not.
	Pick *Pick

	// Inputs are what the model's step gets after the token in every step: Go values or tensors.
	Inputs []any
	// Block fixes how many tokens a call on the device makes, at most 128; 0 chooses it so that a
	// call takes about a quarter of a second.
	Block int
}

// PickInputs is what a [Pick] chooses from, inside of the loop on the device.
type PickInputs struct {
	Logits *graph.Node // [B, V] float32
	Index  *graph.Node // int32 scalar: new tokens of this generation before this one
	Random *graph.Node // [B] float32, uniform in (0, 1], by Generation.Seed
}

// Pick is a way to choose tokens. A graph is compiled for each Pick, so keep one for as long as it
// is used.
type Pick struct {
	choose func(in PickInputs) (token, ends *graph.Node)
}

// NewPick makes a Pick of a graph function: it returns each row's token [B] (int32), and which of
// them end their rows [B] (bool), or nil where Generation.Stop alone says so.
func NewPick(choose func(in PickInputs) (token, ends *graph.Node)) *Pick { return &Pick{choose} }

const (
	defaultTokens  = 20  // that of transformers
	maxTemperature = 1e6 // far beyond use; above it, scores would leave float32
)

// resolved is g with nothing left open.
func (g Generation) resolved() Generation {
	if g.MaxTokens == 0 {
		g.MaxTokens = defaultTokens
	}
	if g.Temperature == 0 {
		g.Temperature = 1
	}
	if g.TopP == 0 {
		g.TopP = 1
	}
	if g.Pick != nil { // it has random numbers, and nothing else is set
		g.Sample, g.Temperature, g.TopK, g.TopP = true, 1, 0, 1
	}
	return g
}

// validate checks what can be checked without a model; written so that NaN fails too.
func (g Generation) validate() error {
	r := g.resolved()
	switch {
	case r.MaxTokens < 1:
		return usererr.New("kvq.Generation.MaxTokens: want at least 1, got %d", r.MaxTokens)
	case !(r.Temperature > 0 && r.Temperature <= maxTemperature):
		return usererr.New("kvq.Generation.Temperature: want above 0 and at most %g (for the most likely token, leave Sample off), got %g", maxTemperature, r.Temperature)
	case !(r.TopP > 0 && r.TopP <= 1):
		return usererr.New("kvq.Generation.TopP: want above 0 and at most 1, got %g", r.TopP)
	case r.TopK < 0:
		return usererr.New("kvq.Generation.TopK: want 0 (no limit) or more, got %d", r.TopK)
	case r.Block < 0 || r.Block > generate.MaxBlock:
		return usererr.New("kvq.Generation.Block: want 0 (by time) to %d, got %d", generate.MaxBlock, r.Block)
	case r.Pad < 0:
		return usererr.New("kvq.Generation.Pad: want a token of 0 or more, got %d", r.Pad)
	}
	if i := slices.IndexFunc(r.Stop, func(t int32) bool { return t < 0 }); i >= 0 {
		return usererr.New("kvq.Generation.Stop: want tokens of 0 or more, got %d", r.Stop[i])
	}
	return nil
}

// picker is the host's side of it. The size of the vocabulary is known later: see pick.Settings.
func (g Generation) picker(rows int) *pick.Picker {
	g = g.resolved()
	return pick.New(pick.Settings{EOS: g.Stop, Sample: g.Sample, Temperature: g.Temperature, TopK: g.TopK, TopP: g.TopP, Seed: g.Seed}, rows, 1<<30)
}

// chooser is what the loop and the first pick have in common.
type chooser struct {
	kind   pick.Kind
	custom *Pick
}

// choose picks each row's token [B] (int32) and tells which of them end their rows [B] (bool).
func (c chooser) choose(logits, step *graph.Node, in pick.Inputs) (token, ends *graph.Node) {
	if c.custom == nil {
		token = c.kind.Pick(logits, step, in)
		return token, c.kind.IsEnding(token, in)
	}
	token, ends = c.custom.choose(PickInputs{
		Logits: logits, Random: in.Random(step), Index: in.Index(step),
	})
	if stop := c.kind.IsEnding(token, in); ends == nil {
		ends = stop
	} else {
		ends = graph.Or(ends, stop)
	}
	return token, ends
}

// PadLeft brings prompts to one length, by padding on the left: tokens [B][T] and how many of a
// row's are padding, start [B], for [Session.PrefillPadded]. T is one of a few lengths (16, 32, 48,
// 64, 96, 128, ...), each of which is compiled once.
func PadLeft(prompts [][]int32, pad int32) (tokens [][]int32, start []int32) {
	longest := 1
	for _, p := range prompts {
		longest = max(longest, len(p))
	}
	columns := generate.PromptColumns(longest)
	for _, p := range prompts {
		row := append(slices.Repeat([]int32{pad}, columns-len(p)), p...)
		tokens, start = append(tokens, row), append(start, int32(columns-len(p)))
	}
	return tokens, start
}
