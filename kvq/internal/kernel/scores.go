package kernel

import (
	"math"

	"github.com/kvqbook/kvqbook/internal/ttir"
)

// scoring makes scores of products, as [attend.Scores] says.
type scoring struct {
	k      Attention
	t      *ttir.Kernel
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
		// tanh(y) = 1 - 2/(e^2y + 1), also where the power is infinite
		power, most := x.MulFloat(float32(2/c)).Exp2(), float32(c*math.Log2E)
		x = ttir.Div(s.t.Float(-2*most), power.AddFloat(1)).AddFloat(most)
	}
	if len(s.k.Scores.Slopes) > 0 {
		x = ttir.Sub(x, ttir.Mul(slope, ttir.Sub(position, token).ToFloat()))
	}
	return x
}
