package kvq

import (
	"fmt"

	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/usererr"
)

// Layout is an order of axes of queries, keys, values and outputs: rows, heads, tokens, elements.
// It is declared, since where there are as many tokens as heads no shape can tell.
type Layout string

const (
	// BHSD is [B, heads, tokens, D], as in transformers. It is the zero value's meaning.
	BHSD Layout = "BHSD"
	// BSHD is [B, tokens, heads, D], as in GoMLX's own layers.
	BSHD Layout = "BSHD"
)

func (l Layout) validate() error {
	switch l {
	case "", BHSD, BSHD:
		return nil
	}
	return usererr.New("kvq.Shape.Layout: want %q or %q, got %q", BHSD, BSHD, string(l))
}

// swap brings x from this layout to BHSD, and back. What has another rank is left as it is: checks
// refuse it.
func (l Layout) swap(x *Node) *Node {
	if l != BSHD || x.Rank() != 4 {
		return x
	}
	return Transpose(x, 1, 2)
}

// order is a wanted shape in this layout, its axes named.
func (l Layout) order(batch, heads, tokens, dim, headsName, tokensName string) string {
	if l == BSHD {
		heads, tokens, headsName, tokensName = tokens, heads, tokensName, headsName
	}
	return fmt.Sprintf("[%s, %s, %s, %s] (batch, %s, %s, head dim)", batch, heads, tokens, dim, headsName, tokensName)
}

// shown is the shape of x, which is in BHSD, as the caller has it.
func (l Layout) shown(x *Node) string {
	s := x.Shape().Clone()
	if d := s.Dimensions; l == BSHD && len(d) == 4 {
		d[1], d[2] = d[2], d[1]
	}
	return s.String()
}
