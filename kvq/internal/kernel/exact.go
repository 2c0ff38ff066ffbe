package kernel

import (
	"math"

	"github.com/kvqbook/kvqbook/internal/ttir"
)

// exactTile is how many slots of sinks and window a program reads.
const exactTile = 16

// exactSide is what the kernel reads of sinks and window. The last programs of a head take
// exactTile slots each and no codes; the programs for codes take none.
type exactSide struct {
	k                   Attention
	q                   ttir.Value
	index, keys, values ttir.Value
}

// exactState is attention over exact tokens, for one query: the largest score times log2(e), the
// sum of weights, the output [width].
type exactState struct{ best, sum, out ttir.Value }

func (s exactSide) attend(t *ttir.Kernel, scoring scoring, split, head, query, row, now ttir.Value, visible func(token ttir.Value) ttir.Value) []exactState {
	k := s.k
	from := split.AddInt(-k.splits).MulInt(exactTile)
	to := ttir.Select(ttir.Less(split, t.Int(k.splits)), from, ttir.Min(from.AddInt(exactTile), t.Int(k.Exact)))
	var carried []ttir.Value
	for range k.queriesPerProgram {
		carried = append(carried, t.Float(maskedScore), t.Float(0), t.Fill(t.Float(0), k.width()))
	}
	carried = t.For(from, to, exactTile, 1, carried, func(i ttir.Value, carried []ttir.Value) []ttir.Value {
		slot := ttir.Add(i, t.Range(exactTile, 0, 1))
		inside := ttir.Less(slot, t.Int(k.Exact))
		slot = ttir.Min(slot, t.Int(k.Exact-1))
		token := ttir.Load(s.index, ttir.Add(row.MulInt(k.Exact), slot))
		seen := visible(token)
		channel, real := k.channels(t, t.Range(k.width(), 1, 2))
		place := ttir.Add(ttir.Add(head.MulInt(k.Exact), slot).MulInt(k.dim()).Expand(1), channel)
		keys, values := ttir.Load(s.keys, place).ToFloat(), ttir.Load(s.values, place).ToFloat()
		if k.width() > k.dim() {
			keys = ttir.Select(real, keys, t.Float(0))
		}
		var next []ttir.Value
		for r := range k.queriesPerProgram {
			state := carried[3*r : 3*r+3]
			q := ttir.Load(s.q, ttir.Add(query.AddInt(r).MulInt(k.dim()), channel)).ToFloat()
			q = q.MulFloat(float32(k.scoreScale() * math.Log2E))
			score := scoring.of(ttir.Mul(keys, q).Sum(1), scoring.slope(query, r), now, token)
			score = ttir.Select(seen, score, t.Float(maskedScore))
			score = ttir.Select(inside, score, t.Float(outsideScore))
			best := ttir.Max(state[0], score.Max(0))
			fade, weight := ttir.Sub(state[0], best).Exp2(), ttir.Sub(score, best).Exp2()
			sum := ttir.Mul(values, weight.Expand(1)).Sum(0)
			next = append(next, best, ttir.MulAdd(state[1], fade, weight.Sum(0)), ttir.MulAdd(state[2], fade, sum))
		}
		return next
	})
	out := make([]exactState, k.queriesPerProgram)
	for r := range out {
		out[r] = exactState{carried[3*r], carried[3*r+1], carried[3*r+2]}
	}
	return out
}
