package kvq

import (
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/gx"
)

// A quantizer that searches tries many ranges at once, and XLA stores some of what it makes for each: several arrays, each of so many times the prompt's
// keys. So a prompt is coded in pieces then, as many as keep such an array at searchShare times the keys. What has fewer than searchAtOnce numbers goes
// in one piece: another loop to compile would cost more.
const (
	searchShare  = 2
	searchAtOnce = 1 << 20
)

// storeCodes codes tokens [B, K, n, D] and writes them to the front of to; n and valid [B, n] as in encode, whole multiples of unit.
func (s side) storeCodes(to coded, tokens, valid *Node, unit int) coded {
	g, d := tokens.Graph(), dims(tokens)
	zero := func() *Node { return gx.Scalar(g, dtypes.Int32, 0) }
	piece := s.promptPiece(d, unit)
	if piece == d[2] {
		return s.write(to, s.encode(tokens, valid), zero(), zero())
	}
	n := len(to.nodes())
	state := gx.Loop(append(to.nodes(), zero(), tokens, valid),
		func(st []*Node) *Node { return gx.LessThanScalar(st[n], d[2]) },
		func(st []*Node) []*Node {
			to, _ := s.take(st[:n])
			from, tokens, valid := st[n], st[n+1], st[n+2]
			// The last piece is shifted back so that it is whole: some tokens get the same codes twice.
			first := gx.MinScalar(from, d[2]-piece)
			x := DynamicSlice(tokens, []*Node{zero(), zero(), first, zero()}, []int{d[0], d[1], piece, d[3]})
			v := DynamicSlice(valid, []*Node{zero(), first}, []int{d[0], piece})
			block := Div(first, gx.Scalar(g, dtypes.Int32, blockTokens))
			to = s.write(to, s.encode(x, v), block, zero())
			return append(to.nodes(), gx.AddScalar(from, piece), tokens, valid)
		})
	to, _ = s.take(state[:n])
	return to
}

// promptPiece is how many tokens of [B, K, n, D] are coded at once.
func (s side) promptPiece(d []int, unit int) int {
	candidates := s.candidates()
	if candidates <= searchShare || candidates*d[0]*d[1]*d[2]*d[3] <= searchAtOnce {
		return d[2]
	}
	units := (d[2]*searchShare/candidates + unit - 1) / unit
	return min(units*unit, d[2])
}

// candidates is how many ranges the quantizer tries at once.
func (s side) candidates() int {
	switch s.fit {
	case Unbiased:
		n := unbiasedCuts[s.bits].n
		return n * n
	case LeastSquares:
		return searchSteps
	}
	return 1
}
