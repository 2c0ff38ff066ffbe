package kernel

import (
	"math"

	"github.com/kvqbook/kvqbook/internal/ptx"
)

// queryElem loads element channel + offset of a query, multiplied by scale; at is the address of
// its channel.
func (u *units) queryElem(at ptx.Value, offset int, scale float64) ptx.Value {
	e := ptx.F32
	if !u.Key.Rotate {
		e = unitElem(u.QueryType)
		scale *= u.scoreScale()
	}
	return u.FMul(u.Load(e, at, offset*e.Bytes()), u.Float(float32(scale*math.Log2E)))
}

// queryAt is the address of a channel of query r, of those that the keys' codes are multiplied by.
func (u *units) queryAt(r, channel ptx.Value) ptx.Value {
	e := ptx.F32
	if !u.Key.Rotate {
		e = unitElem(u.QueryType)
	}
	return u.At(u.rotated, u.Add(u.Mul(u.Add(u.query, r), u.Int(u.dim())), channel), e.Bytes())
}

// column is a query of the program, by number; those beyond the last are the last.
func (u *units) column(r ptx.Value) ptx.Value { return u.Min(r, u.Int(u.realColumns()-1)) }

// unitQueries are the queries of a program as keys need them.
type unitQueries struct {
	// Per channel: of the lane's query, by plane, slice of the lane's and row of lane t (in the
	// order of [slicePlane.index]), float32. Lanes that would have the same column share the slices
	// out: see parts.
	plain [][][8]ptx.Value
	part  ptx.Value   // of the lane
	from  []ptx.Value // by part, the lane that has it for column g
	// column g, bfloat16, by plane, slice and pair; per token
	columns [][][4]ptx.Value
	// sums of query t over the channels of a group, in the unit of scores before they are scaled
	// back; per token
	sums []ptx.Value
}

// parts is how many lanes share the work for a column of queries times scales of channels, which is
// new in every block: with one query or two, several pairs of lanes would do the same.
func (k Attention) parts() int {
	if !k.Key.PerChannel {
		return 1
	}
	return min(unitColumns/k.realColumns(), k.dim()/sliceRows)
}

// queries loads the queries of the program.
func (u *units) queries() (q unitQueries) {
	pair := u.ShiftRight(u.g, u.Int(1))
	query, power, parts := u.column(pair), queryScale, u.parts()
	if u.Key.PerChannel {
		power = channelScale
	}
	q.part = u.Int(0)
	if parts > 1 { // pairs of lanes are queries of the first part, of the second, and so on
		columns := u.Int(u.realColumns())
		q.part = u.Rem(u.Div(pair, columns), u.Int(parts))
		for part := range parts {
			lane := u.Add(u.Mul(u.Add(u.Int(part*u.realColumns()), query), u.Int(2)), u.And(u.g, u.Int(1)))
			q.from = append(q.from, u.Add(u.Mul(lane, u.Int(4)), u.t))
		}
		query = u.Rem(pair, columns)
	}
	for _, p := range u.planes(u.Key) {
		at := u.queryAt(query, u.Add(p.start, u.Mul(q.part, u.Int(sliceRows))))
		var plain [][8]ptx.Value
		var columns [][4]ptx.Value
		for s := 0; s < u.dim()/sliceRows; s += parts {
			var rows [8]ptx.Value
			for f := range 4 {
				low, high := p.rows(f)
				for _, row := range []int{low, high} {
					rows[p.index(row)] = u.queryElem(at, s*sliceRows+row, math.Ldexp(1, power+p.Low-p.at(f)))
				}
			}
			if u.Key.PerChannel {
				plain = append(plain, rows)
			} else {
				columns = append(columns, u.nearestPairs(p, rows))
			}
		}
		q.plain, q.columns = append(q.plain, plain), append(q.columns, columns)
	}
	if !u.Key.PerChannel {
		q.sums = u.querySums()
	}
	return q
}

// left holds in lanes whose column is what bfloat16 leaves over.
func (u *units) left() ptx.Value { return u.Equal(u.And(u.g, u.Int(1)), u.Int(1)) }

// nearestPairs are numbers of the rows of lane t as column g: rounded to bfloat16, and what that
// leaves over rounded. So it takes more instructions than columnPairs, and 17 bits count.
func (u *units) nearestPairs(p slicePlane, rows [8]ptx.Value) (by [4]ptx.Value) {
	left := u.left()
	for f := range by {
		low, high := p.rows(f)
		x, y := rows[p.index(low)], rows[p.index(high)]
		near := u.Halves(ptx.BF16, x, y)
		x = u.Select(left, u.FSub(x, u.Low(ptx.BF16, near)), x)
		y = u.Select(left, u.FSub(y, u.High(ptx.BF16, near)), y)
		by[f] = u.Halves(ptx.BF16, x, y)
	}
	return by
}

// columnPairs are numbers of the rows of lane t as column g: their first bits as bfloat16, and the
// first bits of what that leaves over. 16 bits count.
func (u *units) columnPairs(p slicePlane, rows [8]ptx.Value) (by [4]ptx.Value) {
	keep := u.Select(u.left(), u.Bits(0xffff0000), u.Int(0))
	part := func(row int) ptx.Value {
		x := rows[p.index(row)]
		return u.FSub(x, u.And(x, keep))
	}
	for f := range by {
		low, high := p.rows(f)
		by[f] = u.HighHalves(part(low), part(high))
	}
	return by
}

// querySums are the sums of query t over the channels of each group, in the unit of scores before
// they are scaled back.
func (u *units) querySums() []ptx.Value {
	at := u.queryAt(u.column(u.t), u.Mul(u.g, u.Int(4)))
	sums := make([]ptx.Value, u.Key.Groups())
	for s := range u.dim() / sliceRows {
		group := s * sliceRows / u.Key.Group
		for j := range 4 {
			x := u.queryElem(at, s*sliceRows+j, math.Ldexp(1, queryScale-halfBias))
			if sums[group] == (ptx.Value{}) {
				sums[group] = x
			} else {
				sums[group] = u.FAdd(sums[group], x)
			}
		}
	}
	for i := range sums {
		sums[i] = u.overTokens(sums[i])
		if !u.Key.HasZeros() {
			sums[i] = u.FMul(sums[i], u.Float(-float32(u.Key.Spec.Middle())))
		}
	}
	return sums
}
