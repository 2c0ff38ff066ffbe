package kernel

import (
	"math"

	"github.com/kvqbook/kvqbook/internal/ptx"
)

// unitsTile is how many slots of sinks and window are read at once.
const unitsTile = 8

// exact is a program for exactTile slots of sinks and window, by multiply-adds: a lane has every
// 32nd channel.
func (u *units) exact() {
	each, elem := u.dim()/ptx.Lanes, unitElem(u.CacheType)
	columns := u.realColumns()
	queryElem := unitElem(u.QueryType)
	at := u.At(u.q, u.Add(u.Mul(u.query, u.Int(u.dim())), u.lane), queryElem.Bytes())
	q := make([][]ptx.Value, columns)
	var best, sum []ptx.Value
	out := make([][]ptx.Value, columns)
	var slopes []ptx.Value
	for r := range q {
		for j := range each {
			x := u.Load(queryElem, at, (r*u.dim()+j*ptx.Lanes)*queryElem.Bytes())
			q[r] = append(q[r], u.FMul(x, u.Float(float32(u.scoreScale()*math.Log2E))))
			out[r] = append(out[r], u.Variable(u.Float(0)))
		}
		best, sum = append(best, u.Variable(u.Float(maskedScore))), append(sum, u.Variable(u.Float(0)))
		slopes = append(slopes, u.slope(u.Int(r)))
	}
	slot := u.Variable(u.Mul(u.Sub(u.split, u.Int(u.splits)), u.Int(exactTile)))
	last := u.Min(u.Add(slot, u.Int(exactTile)), u.Int(u.Exact))
	loop := u.NewLabel()
	u.Here(loop)
	scores := make([][]ptx.Value, columns)
	var values [][]ptx.Value
	for i := range unitsTile {
		at := u.Add(slot, u.Int(i))
		inside := u.Less(at, last)
		at = u.Min(at, u.Int(u.Exact-1))
		token := u.LoadWord(u.At(u.exactIndex, u.Add(u.Mul(u.row, u.Int(u.Exact)), at), 4), 0)
		seen := u.visible(token)
		place := u.Add(u.Mul(u.Add(u.Mul(u.head, u.Int(u.Exact)), at), u.Int(u.dim())), u.lane)
		keyAt, valueAt := u.At(u.exactKeys, place, elem.Bytes()), u.At(u.exactValues, place, elem.Bytes())
		var keys, row []ptx.Value
		for j := range each {
			keys = append(keys, u.Load(elem, keyAt, j*ptx.Lanes*elem.Bytes()))
			row = append(row, u.Load(elem, valueAt, j*ptx.Lanes*elem.Bytes()))
		}
		values = append(values, row)
		for r := range q {
			x := u.FMul(keys[0], q[r][0])
			for j := 1; j < each; j++ {
				x = u.FMulAdd(keys[j], q[r][j], x)
			}
			for _, mask := range []int{1, 2, 4, 8, 16} {
				x = u.FAdd(x, u.Across(x, mask))
			}
			x = u.Select(seen, u.scored(x, slopes[r], token), u.Float(maskedScore))
			scores[r] = append(scores[r], u.Select(inside, x, u.Float(outsideScore)))
		}
	}
	for r := range q {
		top := best[r]
		for _, x := range scores[r] {
			top = u.FMax(top, x)
		}
		fade := u.Exp2(u.FSub(best[r], top))
		u.Set(best[r], top)
		u.Set(sum[r], u.FMul(sum[r], fade))
		for _, v := range out[r] {
			u.Set(v, u.FMul(v, fade))
		}
		for i, x := range scores[r] {
			weight := u.Exp2(u.FSub(x, top))
			u.Set(sum[r], u.FAdd(sum[r], weight))
			for j, v := range out[r] {
				u.Set(v, u.FMulAdd(values[i][j], weight, v))
			}
		}
	}
	u.Set(slot, u.Add(slot, u.Int(unitsTile)))
	u.Branch(loop, u.Less(slot, last))

	first := u.Equal(u.lane, u.Int(0))
	for r := range q {
		place := u.place(u.Int(r))
		u.Store(first, u.At(u.top, place, 4), 0, u.FMul(best[r], u.Float(math.Ln2)))
		u.Store(first, u.At(u.sum, place, 4), 0, sum[r])
		at := u.At(u.out, u.Add(u.Mul(place, u.Int(u.dim())), u.lane), 4)
		for j, v := range out[r] {
			u.Store(u.always, at, 4*ptx.Lanes*j, v)
		}
	}
}
