package kvq

import (
	"strings"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/gomlx/gomlx/support/exceptions"
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/kvq/internal/attend"
)

// Masks are nodes of one step that change what its t new tokens see: see [Cache.Mask]. Stored
// tokens are counted by their index in the row, padding not counted, wherever the cache holds them;
// the first new token of a step has the index of [Cache.Positions]. The zero value is plain causal
// attention. The kernel for CUDA reads no masks: with Visible or Bias a single token attends by
// words.
type Masks struct {
	// Visible says which tokens a query sees: bool [B, H, t, n], where B, H and t may also be 1.
	// It takes the place of causality and of sliding windows. Tokens from index n on are not seen,
	// the new ones among them, so n is usually the tokens that there are after the step. A
	// prefix-LM (Raffel et al. 2019, section 3.2.1) has true where the key is not after the query
	// or is in the prefix. Padding is not seen in any case.
	Visible *Node

	// Tree says which of the new tokens a query sees, itself among them: bool [B or 1, t, t]. It
	// sees all older ones, within its window. Drafts that branch have true at their ancestors (tree
	// attention: SpecInfer, Miao et al. 2023, section 4.2). A token stands as many places behind
	// the older tokens as it sees new ones, which counts for windows and slopes; rotary positions
	// are the caller's.
	Tree *Node

	// Bias is added to scores, after the soft cap: any float dtype, [B, H, t, n] as Visible. It
	// adds 0 to tokens from index n on. -Inf masks. T5's relative positions are one (Raffel et al.
	// 2019, section 2.1).
	Bias *Node
}

func (c *fullCache) Mask(m Masks) {
	m.validate(c.shape)
	c.asked, c.seen = m, nil
}

func (c *quantizedCache) Mask(m Masks) {
	m.validate(c.plan.shape)
	c.asked, c.masks = m, nil
}

// validate panics where arrays do not fit one another or the cache.
func (m Masks) validate(s Shape) {
	for _, x := range []struct {
		name string
		node *Node
		ok   func(dtype dtypes.DType) bool
		want string
	}{
		{"Visible", m.Visible, func(d dtypes.DType) bool { return d == dtypes.Bool }, "bool"},
		{"Bias", m.Bias, func(d dtypes.DType) bool { return d.IsFloat() }, "a float dtype"},
	} {
		if x.node == nil {
			continue
		}
		d := dims(x.node)
		if !x.ok(x.node.DType()) || len(d) != 4 || d[0] != 1 && d[0] != s.Batch || d[1] != 1 && d[1]%s.KVHeads != 0 || d[3] < 1 {
			exceptions.Panicf("kvq.Mask: %s %s, want %s [%d or 1, query heads or 1, new tokens or 1, tokens]", x.name, x.node.Shape(), x.want, s.Batch)
		}
	}
	if m.Tree == nil {
		return
	}
	if s.Attention.Cross {
		exceptions.Panicf("kvq.Mask: a Tree in cross-attention, want Visible: the new tokens are not in this cache")
	}
	if m.Visible != nil {
		exceptions.Panicf("kvq.Mask: Visible and Tree, want one of them: Visible says what is seen of all tokens, the new ones too")
	}
	d := dims(m.Tree)
	if m.Tree.DType() != dtypes.Bool || len(d) != 3 || d[0] != 1 && d[0] != s.Batch || d[1] != d[2] {
		exceptions.Panicf("kvq.Mask: Tree %s, want bool [%d or 1, t, t] for the t new tokens", m.Tree.Shape(), s.Batch)
	}
}

// check panics where masks do not fit the step's queries [B, H, t, D], or rows have fewer tokens
// than it has columns: see [Cache.NewTokens].
func (m Masks) check(queries, counts *Node) {
	if m.Tree != nil && counts != nil {
		exceptions.Panicf("kvq.Attend: a Tree in a step with NewTokens, want one of them: branches are for rows that all have t tokens")
	}
	heads, t := dims(queries)[1], dims(queries)[2]
	for _, x := range []*Node{m.Visible, m.Bias} {
		if x == nil {
			continue
		}
		if d := dims(x); d[1] != 1 && d[1] != heads || d[2] != 1 && d[2] != t {
			exceptions.Panicf("kvq.Attend: a mask or bias %s, want [.., %d or 1, %d or 1, ..] for queries %s", x.Shape(), heads, t, queries.Shape())
		}
	}
	if m.Tree != nil && dims(m.Tree)[1] != t {
		exceptions.Panicf("kvq.Attend: a tree %s, want [.., %d, %d] for %d new tokens", m.Tree.Shape(), t, t, t)
	}
}

func (m Masks) any() bool { return m != Masks{} }

// added is what is added to scores by a token's index, float32 [B, H, t, n] where each axis but the
// last may be 1; nil: nothing.
func (m Masks) added() *Node {
	if m.Bias == nil && m.Visible == nil {
		return nil
	}
	bias := m.Bias
	if bias != nil {
		bias = gx.MaxScalar(attend.Float32(bias), attend.Masked)
	}
	if m.Visible == nil {
		return bias
	}
	if bias == nil {
		return attend.MaskOf(m.Visible)
	}
	n := max(dims(bias)[3], dims(m.Visible)[3])
	d := make([]int, 4)
	for axis := range d {
		d[axis] = max(dims(bias)[axis], dims(m.Visible)[axis])
	}
	if dims(bias)[3] != n || dims(m.Visible)[3] != n {
		exceptions.Panicf("kvq.Mask: Visible %s and Bias %s, want the same number of tokens", m.Visible.Shape(), m.Bias.Shape())
	}
	visible, bias := gx.BroadcastToDims(attend.MaskOf(m.Visible), d...), gx.BroadcastToDims(bias, d...)
	return gx.MaxScalar(Add(visible, bias), attend.Masked)
}

// nodes lists the arrays there are.
func (m Masks) nodes() []*Node {
	var list []*Node
	for _, x := range m.arrays() {
		if *x != nil {
			list = append(list, *x)
		}
	}
	return list
}

func (m *Masks) arrays() []**Node { return []**Node{&m.Visible, &m.Tree, &m.Bias} }

// take is the way back from nodes.
func (m Masks) take(nodes []*Node) Masks {
	for _, x := range m.arrays() {
		if *x != nil {
			*x, nodes = nodes[0], nodes[1:]
		}
	}
	return m
}

// kinds tells which arrays there are.
func (m Masks) kinds() string {
	var b strings.Builder
	for i, x := range m.arrays() {
		if *x != nil {
			b.WriteByte("vtb"[i])
		}
	}
	return b.String()
}
