package kvq

import (
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/kvq/internal/codes"
)

// A quantizer that searches tries many ranges at once, and XLA stores some of what it makes for each: several arrays, each of so many times the prompt's
// keys. So a prompt is coded in pieces then, as many as keep such an array at searchShare times the keys. What has fewer than searchAtOnce numbers goes
// in one piece: another loop to compile would cost more.
const (
	searchShare  = 2
	searchAtOnce = 1 << 20
)

// storeCodes codes tokens [B, K, n, D] and writes them to the front of to; n and valid [B, n] as in [codes.Format.Encode], whole multiples of unit.
func storeCodes(f codes.Format, to codes.Blocks, tokens, valid *Node, unit int) codes.Blocks {
	g, d := tokens.Graph(), dims(tokens)
	zero := func() *Node { return gx.Scalar(g, dtypes.Int32, 0) }
	piece := promptPiece(f.Spec.Candidates(), d, unit)
	if piece == d[2] {
		return f.Write(to, f.Encode(tokens, valid), zero(), zero())
	}
	n := len(to.Nodes())
	state := gx.Loop(append(to.Nodes(), zero(), tokens, valid),
		func(st []*Node) *Node { return gx.LessThanScalar(st[n], d[2]) },
		func(st []*Node) []*Node {
			to, _ := f.Take(st[:n])
			from, tokens, valid := st[n], st[n+1], st[n+2]
			// The last piece is shifted back so that it is whole: some tokens get the same codes twice.
			first := gx.MinScalar(from, d[2]-piece)
			x := DynamicSlice(tokens, []*Node{zero(), zero(), first, zero()}, []int{d[0], d[1], piece, d[3]})
			v := DynamicSlice(valid, []*Node{zero(), first}, []int{d[0], piece})
			block := Div(first, gx.Scalar(g, dtypes.Int32, codes.BlockTokens))
			to = f.Write(to, f.Encode(x, v), block, zero())
			return append(to.Nodes(), gx.AddScalar(from, piece), tokens, valid)
		})
	to, _ = f.Take(state[:n])
	return to
}

// promptPiece is how many tokens of [B, K, n, D] are coded at once by a quantizer with so many
// candidates.
func promptPiece(candidates int, d []int, unit int) int {
	if candidates <= searchShare || candidates*d[0]*d[1]*d[2]*d[3] <= searchAtOnce {
		return d[2]
	}
	units := (d[2]*searchShare/candidates + unit - 1) / unit
	return min(units*unit, d[2])
}
