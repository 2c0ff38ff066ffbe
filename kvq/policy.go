package kvq

import (
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/kvq/internal/codes"
)

// policy decides when tokens become codes, and which of them.
type policy interface {
	// check refuses a residual length or a number of sinks that the policy does not have.
	check() error
	// checkGroup refuses groups of so many tokens of a channel.
	checkGroup(tokens int) error

	// sinks is how many first tokens of a row stay exact for good.
	sinks() int
	// threshold is how many tokens the window holds when it is flushed.
	threshold() int
	// kept is how many tokens of a row never need room for codes.
	kept() int

	// flushed is how many of the waiting tokens [B] (int32) of a full window are coded now.
	flushed(waiting *Node) *Node
	// flushSlots is how many code slots, in whole blocks, a flush of a window that was filled token
	// by token touches at most, where no group runs along tokens.
	flushSlots() int
	// ofPrompt is how many of a prompt's tokens [B] (int32) are coded.
	ofPrompt(tokens *Node) *Node
	// promptSlots is ofPrompt of a row of so many tokens, rounded up to whole blocks.
	promptSlots(tokens int) int
	// coded is how many of a row's tokens are codes when they came one by one.
	coded(tokens int) int
	// codedAfter is how many are codes after a prompt and so many more tokens, when the next comes.
	codedAfter(prompt, more int) int
}

// wholeWindow is transformers' policy: a prompt is coded whole, and later the window is flushed
// whole when it holds residual tokens.
type wholeWindow struct {
	backend                Backend
	residual, first, block int
}

func newWholeWindow(c Config, block int) policy {
	return wholeWindow{backend: c.Backend, residual: c.ResidualLength, first: c.Sinks, block: block}
}

func (p wholeWindow) check() error {
	if p.residual < 1 {
		return usererr.New("kvq.Config.ResidualLength: want at least 1 for backend %s, got %d", p.backend, p.residual)
	}
	if p.first != 0 {
		return usererr.New("kvq.Config.Sinks: want 0 (sinks need backend %q), got %d", Blocks, p.first)
	}
	return nil
}

func (p wholeWindow) checkGroup(tokens int) error {
	if p.residual%tokens != 0 {
		return usererr.New("kvq.Config.ResidualLength: want a multiple of the per-channel group of %d tokens, got %d: a shorter window would "+
			"never fill a group", tokens, p.residual)
	}
	return nil
}

func (p wholeWindow) sinks() int { return 0 }

// The first token after a flush is always kept, so a residual length of 1 works like 2
// (ALGORITHM.md section 1).
func (p wholeWindow) threshold() int { return max(p.residual, 2) }

func (p wholeWindow) kept() int                   { return 0 }
func (p wholeWindow) flushed(waiting *Node) *Node { return waiting }

// A prompt may have left a block with room for 31 tokens.
func (p wholeWindow) flushSlots() int {
	return (p.threshold() + 2*(codes.BlockTokens-1)) / codes.BlockTokens * codes.BlockTokens
}

func (p wholeWindow) ofPrompt(tokens *Node) *Node { return tokens }
func (p wholeWindow) promptSlots(tokens int) int  { return (tokens + p.block - 1) / p.block * p.block }
func (p wholeWindow) coded(tokens int) int        { return tokens / p.threshold() * p.threshold() }

func (p wholeWindow) codedAfter(prompt, more int) int { return prompt + p.coded(more) }

// newestExact is this library's policy: the first tokens (sinks) and the newest residual ones are
// always exact, and what is older is coded in whole blocks. It codes a prompt as if it had come
// token by token.
type newestExact struct {
	backend                Backend
	residual, first, block int
}

func newNewestExact(c Config, block int) policy {
	return newestExact{backend: c.Backend, residual: c.ResidualLength, first: c.Sinks, block: block}
}

func (p newestExact) check() error {
	if p.residual < 0 {
		return usererr.New("kvq.Config.ResidualLength: want at least 0 for backend %s, got %d", p.backend, p.residual)
	}
	if p.first < 0 {
		return usererr.New("kvq.Config.Sinks: want 0 or more, got %d", p.first)
	}
	return nil
}

func (p newestExact) checkGroup(int) error { return nil }
func (p newestExact) sinks() int           { return p.first }
func (p newestExact) threshold() int       { return p.residual + p.block }
func (p newestExact) kept() int            { return p.first + p.residual }

func (p newestExact) flushed(waiting *Node) *Node { return p.whole(waiting, p.residual) }
func (p newestExact) flushSlots() int             { return p.block }
func (p newestExact) ofPrompt(tokens *Node) *Node { return p.whole(tokens, p.first+p.residual) }

// whole is the tokens beyond the exact ones, in whole blocks.
func (p newestExact) whole(tokens *Node, exact int) *Node {
	more := gx.MaxScalar(gx.AddScalar(tokens, -exact), 0)
	return gx.MulScalar(Div(more, gx.Scalar(more.Graph(), dtypes.Int32, p.block)), p.block)
}

func (p newestExact) promptSlots(tokens int) int { return p.coded(tokens) }
func (p newestExact) coded(tokens int) int {
	return max(0, tokens-p.first-p.residual) / p.block * p.block
}

func (p newestExact) codedAfter(prompt, more int) int { return p.coded(prompt + more) }
