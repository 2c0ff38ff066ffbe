package kernel

import (
	"math"

	"github.com/kvqbook/kvqbook/internal/ptx"
)

// unitsState is what is carried from block to block: variables.
type unitsState struct {
	u         *units
	best, sum ptx.Value         // of query t; sum of tokens 4g to 4g+3 of every block
	zeros     []ptx.Value       // by group, sums as sum is one
	out       [][2][4]ptx.Value // by slice of channels: rows of the first are channels 4g and 4g + 1
}

func (u *units) newState() *unitsState {
	s := &unitsState{u: u, best: u.Variable(u.Float(maskedScore)), sum: u.Variable(u.Float(0))}
	for range u.Value.Groups() {
		s.zeros = append(s.zeros, u.Variable(u.Float(0)))
	}
	for range u.dim() / sliceRows {
		var c [2][4]ptx.Value
		for tile := range c {
			for i := range c[tile] {
				c[tile][i] = u.Variable(u.Float(0))
			}
		}
		s.out = append(s.out, c)
	}
	return s
}

// raise makes best, a query's largest score so far, as large as top is in any lane of the query,
// and fades the sums that were made below it. Most blocks leave best as it is, and branch over
// that.
func (u *units) raise(top, best ptx.Value, sums []ptx.Value) {
	for _, mask := range []int{4, 8, 16} {
		top = u.FMax(top, u.Across(top, mask))
	}
	same := u.NewLabel()
	u.Branch(same, u.All(u.FAtMost(top, best)))
	next := u.FMax(best, top)
	fade := u.Exp2(u.FSub(best, next))
	u.Set(best, next)
	for _, v := range sums {
		u.Set(v, u.FMul(v, fade))
	}
	u.Here(same)
}

// add adds the values of a block by the scores of its tokens.
func (s *unitsState) add(at ptx.Value, in stage, scores []ptx.Value) {
	u := s.u
	top := u.FMax(u.FMax(scores[0], scores[1]), u.FMax(scores[2], scores[3]))
	u.raise(top, s.best, s.variables())

	weights := make([]ptx.Value, 4)
	sum := s.sum
	for i, score := range scores {
		weights[i] = u.Exp2(u.FSub(score, s.best))
		sum = u.FAdd(sum, weights[i])
	}
	u.Set(s.sum, sum)
	lane := u.Add(at, u.Mul(u.g, u.Int(4*u.scaleSize())))
	for group, v := range s.zeros {
		sum := v
		offset := 32 * group * u.scaleSize()
		zeros := u.scales(lane, in.valueScales+offset)
		if u.Value.HasZeros() {
			zeros = u.zeros(u.Value, lane, in.valueZeros+offset, zeros)
		}
		for i, zero := range zeros {
			sum = u.FMulAdd(zero, weights[i], sum)
		}
		u.Set(v, sum)
	}
	for _, p := range u.planes(u.Value) {
		s.plane(p, at, in, weights)
	}
}

// plane adds the products of a plane of codes.
func (s *unitsState) plane(p slicePlane, at ptx.Value, in stage, weights []ptx.Value) {
	u := s.u
	// Weights of the rows of lane t, of query g/2.
	var rows [8]ptx.Value
	from := u.Add(p.start, u.ShiftRight(u.g, u.Int(1)))
	for i := range 4 {
		rows[i] = u.FromLane(weights[i], from)
		rows[4+i] = u.FromLane(weights[i], u.Add(from, u.Int(p.apart())))
	}
	for f := range 4 {
		low, high := p.rows(f)
		for _, row := range []int{low, high} {
			rows[p.index(row)] = u.FMul(rows[p.index(row)], u.Float(float32(math.Ldexp(1, weightScale+p.Low-p.at(f)))))
		}
	}
	lane := u.Add(at, u.Mul(p.start, u.Int(u.scaleSize())))
	for group := range u.Value.Groups() {
		offset := in.valueScales + 32*group*u.scaleSize()
		scale := append(u.scales(lane, offset), u.scales(lane, offset+p.apart()*u.scaleSize())...)
		scaled := rows
		for j := range scaled {
			scaled[j] = u.FMul(rows[j], scale[j])
		}
		by := u.columnPairs(p, scaled)
		for slice := group * u.Value.Group / sliceRows; slice < (group+1)*u.Value.Group/sliceRows; slice++ {
			words := u.loads(p, u.Value.Bits, at, in.values+128*slice, 0, 4*u.dim())
			for tile := range 2 {
				out := s.out[slice][tile]
				for i, x := range u.slice(p, words[2*tile], words[2*tile+1], by, out) {
					u.Set(out[i], x)
				}
			}
		}
	}
}

// overTokens adds what lanes of the same t have.
func (u *units) overTokens(x ptx.Value) ptx.Value {
	for _, mask := range []int{4, 8, 16} {
		x = u.FAdd(x, u.Across(x, mask))
	}
	return x
}

// variables are those that fade.
func (s *unitsState) variables() []ptx.Value {
	list := append([]ptx.Value{s.sum}, s.zeros...)
	for _, c := range s.out {
		list = append(append(list, c[0][:]...), c[1][:]...)
	}
	return list
}

// store writes what the program found.
func (s *unitsState) store() {
	u := s.u
	place := u.place(u.t)
	mine := u.LessUnsigned(u.t, u.Int(u.realColumns()))
	first := u.Both(mine, u.Equal(u.g, u.Int(0)))
	u.Store(first, u.At(u.top, place, 4), 0, u.FMul(s.best, u.Float(math.Ln2)))
	u.Store(first, u.At(u.sum, place, 4), 0, u.overTokens(s.sum))
	at := u.At(u.out, u.Add(u.Mul(place, u.Int(u.dim())), u.Mul(u.g, u.Int(4))), 4)
	var zeros []ptx.Value
	for _, v := range s.zeros {
		v = u.overTokens(v)
		if !u.Value.HasZeros() {
			v = u.FMul(v, u.Float(-float32(u.Value.Spec.Middle())))
		}
		zeros = append(zeros, v)
	}
	back := u.Float(float32(math.Ldexp(1, halfBias-weightScale)))
	for slice, c := range s.out {
		var list []ptx.Value
		for i := range 4 {
			x := u.FAdd(c[i/2][i%2*2], c[i/2][i%2*2+1])
			list = append(list, u.FMulAdd(x, back, zeros[slice*sliceRows/u.Value.Group]))
		}
		u.Store(mine, at, 4*sliceRows*slice, list...)
	}
}
