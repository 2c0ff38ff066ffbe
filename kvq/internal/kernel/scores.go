package kernel

import (
	"math"

	"github.com/kvqbook/kvqbook/internal/ttir"
)

// scoring makes scores of products, as [attend.Scores] says.
type scoring struct {
	k      Attention
	slopes ttir.Value // a pointer to slopes [H]; none without
}

// slope is that of query r of a program, whose queries begin with query, times log2(e).
func (s scoring) slope(query ttir.Value, r int) ttir.Value {
	if len(s.k.Scores.Slopes) == 0 {
		return ttir.Value{}
	}
	return ttir.Load(s.slopes, query.AddInt(r).RemInt(s.k.Heads*s.k.Queries)).MulFloat(math.Log2E)
}

// of caps products, which count log2(e) times as scores do, and takes off what the distance of
// token and position costs.
func (s scoring) of(x, slope, position, token ttir.Value) ttir.Value {
	if c := s.k.Scores.SoftCap; c > 0 {
		// tanh(y) = (e^2y - 1) / (e^2y + 1); from 2^40 on the quotient is 1 in float32
		power := x.MulFloat(float32(2 / c)).AtMost(40).Exp2()
		x = ttir.Div(power.AddFloat(-1), power.AddFloat(1)).MulFloat(float32(c * math.Log2E))
	}
	if len(s.k.Scores.Slopes) > 0 {
		x = ttir.Sub(x, ttir.Mul(slope, ttir.Sub(position, token).ToFloat()))
	}
	return x
}
