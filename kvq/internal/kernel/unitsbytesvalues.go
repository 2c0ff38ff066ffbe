package kernel

import (
	"math"
	"slices"

	"github.com/kvqbook/kvqbook/internal/ptx"
)

// byteValues is what a program has of values: what it needs of them, and what is carried from pair
// to pair (variables).
type byteValues struct {
	u      *units
	planes []byteValue
	bits   int
	to     ptx.Value // where the lane's digits go
	from   ptx.Value // and come from
	column ptx.Value // what column 2t counts
	write  ptx.Value // where the lane's weights go
	writes ptx.Value // in which lanes

	best, sum, zeros ptx.Value
	out              [4][2][2]ptx.Value // by 32 channels: 4g and 4g + 1, 4g + 2 and 4g + 3
}

type byteValue struct {
	bytePlane
	scales  strided
	weights ptx.Value // where the lane's weights begin
	factor  ptx.Value
	rows    ptx.Value
	down    ptx.Value // of 1 bit
}

// weightsOfBlock is the room of a block's weights in shared memory: those of two blocks meet at no
// bank.
const weightsOfBlock = 36 * 4

func (u *units) byteValues(shared ptx.Value, digits, weights int) *byteValues {
	s := u.pairStage(u.Value)
	planes, total, most := bytePlanes(u.Value)
	// The lane's numbers: group 16·lane, lane t of the columns, register.
	group, owner, v := u.ShiftRight(u.lane, u.Int(4)), u.And(u.ShiftRight(u.lane, u.Int(2)), u.Int(3)), u.And(u.lane, u.Int(3))
	block, half := u.ShiftRight(owner, u.Int(1)), u.And(owner, u.Int(1))
	x := &byteValues{u: u, bits: 30 - most}
	// Of a group, registers 0 to 3 or 4 to 7.
	x.to = u.Add(shared, u.Add(u.Int(digits), u.Add(u.Mul(owner, u.Int(digitsOfLane)), u.Mul(u.Add(u.Mul(group, u.Int(4)), v), u.Int(4)))))
	x.from = u.Add(shared, u.Add(u.Int(digits), u.Add(u.Mul(u.t, u.Int(digitsOfLane)), u.Mul(u.And(u.g, u.Int(3)), u.Int(digitsOfColumn)))))
	odd := u.Equal(u.And(u.t, u.Int(1)), u.Int(1))
	x.column = u.Select(odd, u.Float(float32(math.Ldexp(1, 16-total))), u.Float(float32(math.Ldexp(1, -total))))
	x.write = u.Add(shared, u.Add(u.Int(weights), u.Add(u.Mul(u.t, u.Int(weightsOfBlock)), u.Mul(u.g, u.Int(16)))))
	x.writes = u.LessUnsigned(u.t, u.Int(2))
	myBlock, myHalf := u.ShiftRight(u.t, u.Int(1)), u.And(u.t, u.Int(1))
	for _, p := range planes {
		rows := 16
		p.words = p.Width / 2
		swap := u.Mul(u.t, u.Int(2))
		if p.Width == 1 {
			rows, p.words = 4, 1
			swap = u.Mul(myBlock, u.Int(4))
		}
		token := u.Add(u.Mul(half, u.Int(rows)), p.first(u, v))
		y := byteValue{bytePlane: p, factor: p.factor(u, v)}
		y.scales = u.strided(u.Add(u.Mul(group, u.Int(32)), token), p.step())
		y.scales.at = u.Add(y.scales.at, u.Mul(block, u.Int(s.smallBytes)))
		y.weights = u.Add(shared, u.Add(u.Int(weights), u.Add(u.Mul(block, u.Int(weightsOfBlock)), u.Mul(token, u.Int(4)))))
		row := u.Mul(myHalf, u.Int(p.words))
		if p.Width == 1 {
			row, y.down = u.Int(0), u.Mul(myHalf, u.Int(4))
		}
		y.rows = u.Add(u.Add(u.Mul(myBlock, u.Int(s.codeBytes)), u.Mul(row, u.Int(512))), u.Mul(u.Xor(u.g, swap), u.Int(16)))
		x.planes = append(x.planes, y)
	}
	x.best, x.sum, x.zeros = u.Variable(u.Float(maskedScore)), u.Variable(u.Float(0)), u.Variable(u.Float(0))
	for i := range x.out {
		for tile := range x.out[i] {
			for j := range x.out[i][tile] {
				x.out[i][tile][j] = u.Variable(u.Float(0))
			}
		}
	}
	return x
}

// add adds the values of a pair by the scores of its tokens: tokens 4g to 4g + 3 of both blocks.
func (x *byteValues) add(at ptx.Value, scores [2][]ptx.Value) {
	u, s := x.u, x.u.pairStage(x.u.Value)
	top := scores[0][0]
	for _, score := range slices.Concat(scores[0][1:], scores[1]) {
		top = u.FMax(top, score)
	}
	u.raise(top, x.best, x.variables())

	var weights [2][4]ptx.Value
	sum := x.sum
	for block, list := range scores {
		for i, score := range list {
			weights[block][i] = u.Exp2(u.FSub(score, x.best))
			sum = u.FAdd(sum, weights[block][i])
		}
	}
	u.Set(x.sum, sum)
	first := u.Equal(u.t, u.Int(0))
	var mine [4]ptx.Value
	for i := range mine {
		mine[i] = u.Select(first, weights[0][i], weights[1][i])
	}
	u.StoreSharedIf(&x.writes, x.write, 0, mine[:]...)
	u.Meet()

	var unit, back ptx.Value
	for i, p := range x.planes {
		scale, zero := p.scales.load(u, u.Value, u.Add(at, p.scales.at), s.scales, s.zeros)
		var w, n [4]ptx.Value
		for j := range n {
			w[j] = u.LoadShared(1, p.weights, 4*j*p.step())[0]
			n[j] = u.FMul(w[j], scale[j])
		}
		if i == 0 {
			zeros := x.zeros
			for j := range n {
				if u.Value.HasZeros() {
					zeros = u.FMulAdd(w[j], zero[j], zeros)
				} else {
					zeros = u.FMulAdd(n[j], u.Float(-float32(u.Value.Spec.Middle())), zeros)
				}
			}
			u.Set(x.zeros, zeros)
			unit, back = u.stepOf(n, x.bits)
		}
		u.digits(n, u.FMul(unit, p.factor), x.to, i*digitsSize)
	}
	u.Meet()
	var by [][]ptx.Value // by plane, of both groups
	for i := range x.planes {
		by = append(by, append(u.LoadShared(4, x.from, i*digitsSize), u.LoadShared(4, x.from, i*digitsSize+16)...))
	}
	column := u.FMul(back, x.column)
	zero := u.Int(0)
	for slice := range x.out {
		c := [2][4]ptx.Value{{zero, zero, zero, zero}, {zero, zero, zero, zero}}
		group := slice * sliceRows / u.Value.Group
		for i, p := range x.planes {
			lane := u.Add(at, p.rows)
			var words [4][]ptx.Value // of channels 4g to 4g + 3
			for w := range p.words {
				for channel, v := range u.LoadShared(4, lane, 128*slice+512*(p.First+w)) {
					if p.Width == 1 {
						v = u.ShiftRight(v, p.down)
					}
					words[channel] = append(words[channel], v)
				}
			}
			for tile := range c {
				c[tile] = u.byteProducts(p.registers(u, words[2*tile], 4), p.registers(u, words[2*tile+1], 4), by[i][4*group:4*group+4], c[tile])
			}
		}
		for tile := range c {
			for j, out := range x.out[slice][tile] {
				u.Set(out, u.FMulAdd(u.twoColumns(c[tile][2*j:]), column, out))
			}
		}
	}
}

// variables are those that fade.
func (x *byteValues) variables() []ptx.Value {
	list := []ptx.Value{x.sum, x.zeros}
	for _, c := range x.out {
		list = append(append(list, c[0][:]...), c[1][:]...)
	}
	return list
}

// store writes what the program found.
func (x *byteValues) store() {
	u := x.u
	place := u.place(u.Int(0))
	first := u.Equal(u.lane, u.Int(0))
	u.Store(first, u.At(u.top, place, 4), 0, u.FMul(x.best, u.Float(math.Ln2)))
	u.Store(first, u.At(u.sum, place, 4), 0, u.overTokens(x.sum))
	zeros := x.zeros // of the lane's group, which is that of lanes 0 to 15 or of the others
	for _, mask := range []int{1, 2, 4, 8} {
		zeros = u.FAdd(zeros, u.Across(zeros, mask))
	}
	groups := [2]ptx.Value{u.FromLane(zeros, u.Int(0)), u.FromLane(zeros, u.Int(16))}
	// Lane t goes on with the 32t-th channels.
	mine := make([]ptx.Value, 4)
	for slice, c := range x.out {
		here := u.Equal(u.t, u.Int(slice))
		for i := range mine {
			v := c[i/2][i%2]
			v = u.FAdd(u.FAdd(v, u.Across(v, 1)), groups[slice*sliceRows/u.Value.Group])
			if slice > 0 {
				v = u.Select(here, v, mine[i])
			}
			mine[i] = v
		}
	}
	if u.Value.Rotate { // back
		for i, v := range mine {
			mine[i] = u.FMul(v, u.Float(float32(1/math.Sqrt(float64(u.dim())))))
		}
		mine = u.acrossLanes(u.butterfly(mine), []int{1, 2, 4, 8, 16})
	}
	channel := u.Add(u.Mul(u.t, u.Int(sliceRows)), u.Mul(u.g, u.Int(4)))
	u.Store(u.always, u.At(u.out, u.Add(u.Mul(place, u.Int(u.dim())), channel), 4), 0, mine...)
}
