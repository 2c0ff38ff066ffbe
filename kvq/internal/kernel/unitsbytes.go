package kernel

import (
	"math"

	"github.com/kvqbook/kvqbook/internal/ptx"
	"github.com/kvqbook/kvqbook/kvq/internal/codes"
	"github.com/kvqbook/kvqbook/kvq/internal/numbers"
)

// The kernel by tensor units of bytes: for one query a head and keys with scales of channels. It
// takes two blocks at a time, a pair. A product is [16, 32] x [32, 8]: 16 tokens or channels, 32
// channels or tokens, and 8 columns.
//
// Codes are the bytes of a word where they lie, masked: code·2^at. What they are multiplied by, a
// query times scales or a weight times a scale, is an integer of 31 bits in steps of a power of two
// that the largest of them sets, and at is in it already. Its four bytes, -128 to 127 each, are
// four columns, and four more are the same. So sums are exact, and a code takes half the masks and
// half the products of [ptx.Kernel.Units].
//
// Each integer is made by one lane, and comes to the others by shared memory.

// byteLeast is the least exponent that the largest number has: below it bits are lost. Scaling
// stays finite.
const byteLeast = 40

// rotatesInside tells whether the kernel rotates queries, and the output back.
func (k Attention) rotatesInside() bool { return k.takesBytes() }

// takesBytes tells whether the form is for this shape.
func (k Attention) takesBytes() bool {
	return k.units && k.Queries == 1 && k.Key.PerChannel && k.dim() == 128 && k.Value.Groups() == 2
}

// bytePlane is a plane of codes. A lane masks four codes at a time out of a word, a register of a
// product: register v is
//
//	bits   rows, from the lane's first                           begin at bit
//	4      8(v/2) + v%2 + (0, 2, 4, 6)                           4(v%2)
//	2      16(v/4) + v%4 + (0, 4, 8, 12)                         2(v%4)
//	1      v + (0, 8, 16, 24); from 4 on of the word shifted     v%4
//	8      4v + (0, 1, 2, 3)                                     0
//
// The first row of lane t is channel 32t of keys, which has eight registers. Of values it is token
// 16(t%2), with 1 bit 4(t%2), of block t/2 of the pair; they have four.
type bytePlane struct {
	codes.Plane
	words int // of a lane
	shift int // of what is multiplied, for fields that begin at bit 0
}

// bytePlanes are the planes of a side; all sums are 2^total times what they stand for.
func bytePlanes(f codes.Format) (list []bytePlane, total, most int) {
	for _, p := range f.Planes() {
		total = max(total, map[int]int{8: 0, 4: 4, 2: 6, 1: 3}[p.Width]-p.Low)
	}
	for _, p := range f.Planes() {
		list = append(list, bytePlane{Plane: p, shift: total + p.Low})
		most = max(most, total+p.Low)
	}
	return list, total, most
}

func (p bytePlane) step() int { return 8 / p.Width }

// first is the first row of register v, from the lane's first.
func (p bytePlane) first(u *units, v ptx.Value) ptx.Value {
	switch p.Width {
	case 4:
		return u.Add(u.Mul(u.ShiftRight(v, u.Int(1)), u.Int(8)), u.And(v, u.Int(1)))
	case 2:
		return u.Add(u.Mul(u.ShiftRight(v, u.Int(2)), u.Int(16)), u.And(v, u.Int(3)))
	case 1:
		return v
	}
	return u.Mul(v, u.Int(4))
}

// factor is 2^(shift-at) of register v.
func (p bytePlane) factor(u *units, v ptx.Value) ptx.Value {
	at := u.Int(0)
	switch p.Width {
	case 4:
		at = u.Mul(u.And(v, u.Int(1)), u.Int(4))
	case 2:
		at = u.Mul(u.And(v, u.Int(3)), u.Int(2))
	case 1:
		at = u.And(v, u.Int(3))
	}
	return u.ShiftLeft(u.Sub(u.Int(127+p.shift), at), u.Int(23))
}

// registers masks n registers of a lane out of its words.
func (p bytePlane) registers(u *units, words []ptx.Value, n int) []ptx.Value {
	if p.Width == 8 {
		return words
	}
	each := 8 / p.Width // of a word; 1 bit: and as many of the word shifted
	mask := uint32(1<<p.Width-1) * 0x01010101
	var out []ptx.Value
	for v := range n {
		if p.Width == 1 {
			x := words[0]
			if v >= 4 {
				x = u.ShiftRight(x, u.Int(4))
			}
			out = append(out, u.And(x, u.Bits(mask<<(v%4))))
			continue
		}
		out = append(out, u.And(words[v/each], u.Bits(mask<<(v%each*p.Width))))
	}
	return out
}

// strided are four elements of a row of scales, for a lane: base + i·step.
type strided struct {
	at   ptx.Value // bytes from where the row begins
	low  ptx.Value // byte of a word
	step int       // bytes
}

func (u *units) strided(base ptx.Value, step int) strided {
	bytes := u.Mul(base, u.Int(u.scaleSize()))
	return strided{u.And(bytes, u.Bits(^uint32(3))), u.And(bytes, u.Int(3)), step * u.scaleSize()}
}

// words are the words of the four elements, and the byte of each word where its element begins,
// beside that of the lane.
func (s strided) words(u *units, at ptx.Value, offset int) (list [4]ptx.Value, low [4]int) {
	n := 1
	switch s.step {
	case 4:
		n = 4
	case 2:
		n = 2
	}
	var loaded []ptx.Value
	if s.step > 4 {
		for i := range 4 {
			loaded = append(loaded, u.LoadShared(1, at, offset+i*s.step)[0])
		}
		return [4]ptx.Value(loaded), low
	}
	loaded = u.LoadShared(n, at, offset)
	for i := range list {
		list[i], low[i] = loaded[i*s.step/4], i*s.step%4
	}
	return list, low
}

// scales and, where there are any, zeros of four elements.
func (s strided) load(u *units, f codes.Format, at ptx.Value, scales, zeros int) (scale, zero [4]ptx.Value) {
	words, low := s.words(u, at, scales)
	for i, x := range words {
		scale[i] = s.number(u, x, low[i])
	}
	if !f.HasZeros() {
		return scale, zero
	}
	words, low = s.words(u, at, zeros)
	for i, x := range words {
		if u.storage != numbers.Scale8 {
			zero[i] = s.number(u, x, low[i])
			continue
		}
		unit := numbers.ZeroUnit(f.Bits)
		origin := math.Ldexp(unit, 23)
		x = u.Permute(x, u.Bits(math.Float32bits(float32(origin))), u.Add(s.low, u.Int(0x7650+low[i])))
		zero[i] = u.FMul(u.FSub(x, u.Float(float32(origin+numbers.ByteZeroOffset*unit))), scale[i])
	}
	return scale, zero
}

func (s strided) number(u *units, x ptx.Value, low int) ptx.Value {
	switch {
	case u.storage == numbers.Scale8:
		// The byte as the third of a word, three bits higher: the first bits of a float32.
		x = u.Permute(x, u.Int(0), u.Add(u.ShiftLeft(s.low, u.Int(8)), u.Int(0x4044+low<<8)))
		const up = 23 - numbers.ByteScaleMantissa - 16
		exponent := math.Ldexp(1, numbers.ByteScaleOffset>>numbers.ByteScaleMantissa)
		return u.FMul(u.ShiftLeft(x, u.Int(up)), u.Float(float32(exponent)))
	case u.elem == ptx.F32:
		return x
	}
	return u.Low(u.elem, u.ShiftRight(x, u.Add(u.Mul(s.low, u.Int(8)), u.Int(8*low))))
}

// stepOf finds a power of two for numbers of every lane, x·unit is below 2^bits, and one over it,
// which is NaN where a lane has a number that is not finite: no integer would say so.
func (u *units) stepOf(x [4]ptx.Value, bits int) (unit, back ptx.Value) {
	abs := func(v ptx.Value) ptx.Value { return u.And(v, u.Bits(0x7fffffff)) }
	// As integers they are in order, and NaN is above all others.
	most := u.Max(u.Max(abs(x[0]), abs(x[1])), u.Max(abs(x[2]), abs(x[3])))
	most = u.Max(u.MaxUnsigned(most), u.Bits(byteLeast<<23))
	top := u.And(most, u.Bits(0x7f800000))
	back = u.Sub(top, u.Bits(uint32(bits-1)<<23))
	return u.Sub(u.Bits(uint32(253+bits)<<23), top), u.FMulAdd(most, u.Float(0), back)
}

// Digits lie in shared memory by lane t, column and register: so far apart that lanes meet no
// others at a bank.
const (
	digitsOfLane   = 56 * 4
	digitsOfColumn = 12 * 4
	digitsSize     = (3*56 + 3*12 + 8) * 4
)

// digits writes four numbers times a factor as columns of bytes to a place of the lane.
func (u *units) digits(x [4]ptx.Value, factor, to ptx.Value, offset int) {
	var y [4]ptx.Value
	for i, v := range x {
		const half = 0x00808080 // from 0 to 255 to -128 to 127, with a carry
		y[i] = u.Xor(u.Add(u.ToInt(u.FMul(v, factor)), u.Int(half)), u.Int(half))
	}
	low, high := [2]ptx.Value{}, [2]ptx.Value{}
	for i := range 2 {
		low[i] = u.Permute(y[2*i], y[2*i+1], u.Int(0x5140))
		high[i] = u.Permute(y[2*i], y[2*i+1], u.Int(0x7362))
	}
	for column, from := range [4][2]ptx.Value{low, low, high, high} {
		u.StoreShared(to, offset+column*digitsOfColumn, u.Permute(from[0], from[1], u.Int([2]int{0x5410, 0x7632}[column%2])))
	}
}

// byteKeys is what a program has of its query.
type byteKeys struct {
	planes []byteKey
	bits   int       // of a query times scale
	to     ptx.Value // where the lane's digits go
	from   ptx.Value // and come from
	column ptx.Value // what column 2t counts
}

type byteKey struct {
	bytePlane
	q      [4]ptx.Value
	scales strided
	factor ptx.Value
	rows   ptx.Value // of the lane's words of codes, and the piece in it
}

func (u *units) byteKeys(shared ptx.Value, digits int) byteKeys {
	planes, total, most := bytePlanes(u.Key)
	owner, v := u.ShiftRight(u.lane, u.Int(3)), u.And(u.lane, u.Int(7))
	k := byteKeys{bits: 30 - most}
	k.to = u.Add(shared, u.Add(u.Int(digits), u.Add(u.Mul(owner, u.Int(digitsOfLane)), u.Mul(v, u.Int(4)))))
	k.from = u.Add(shared, u.Add(u.Int(digits), u.Add(u.Mul(u.t, u.Int(digitsOfLane)), u.Mul(u.And(u.g, u.Int(3)), u.Int(digitsOfColumn)))))
	odd := u.Equal(u.And(u.t, u.Int(1)), u.Int(1))
	k.column = u.Select(odd, u.Float(float32(math.Ldexp(1, 16-total))), u.Float(float32(math.Ldexp(1, -total))))
	layout, part := u.Key.Words(), u.Key.WordsOfPart()
	query := u.Add(shared, u.Int(digits))
	u.byteQuery(query)
	for _, p := range planes {
		p.words = p.Width
		x := byteKey{bytePlane: p, factor: p.factor(u, v)}
		channel := u.Add(u.Mul(owner, u.Int(32)), p.first(u, v))
		x.scales = u.strided(channel, p.step())
		at := u.Add(query, u.Mul(channel, u.Int(4)))
		for i := range x.q {
			x.q[i] = u.LoadShared(1, at, 4*i*p.step())[0]
		}
		first := u.Mul(u.t, u.Int(32))
		row := u.Add(u.Mul(u.Div(first, u.Int(layout.Rows)), u.Int(part)),
			u.Mul(u.ShiftRight(u.Rem(first, u.Int(layout.Rows)), u.Int(5)), u.Int(p.Width)))
		x.rows = u.Add(u.Mul(row, u.Int(128)), u.Mul(u.Xor(u.g, u.Mul(u.t, u.Int(2))), u.Int(16)))
		k.planes = append(k.planes, x)
	}
	return k
}

// byteQuery writes the query, rotated where keys are, times scoreScale and log2(e), to shared
// memory.
func (u *units) byteQuery(to ptx.Value) {
	e, scale := unitElem(u.QueryType), u.scoreScale()*math.Log2E
	at := u.At(u.q, u.Add(u.Mul(u.query, u.Int(u.dim())), u.Mul(u.lane, u.Int(4))), e.Bytes())
	if u.Key.Rotate {
		scale /= math.Sqrt(float64(u.dim()))
	}
	x := make([]ptx.Value, 4)
	for i := range x {
		x[i] = u.FMul(u.Load(e, at, i*e.Bytes()), u.Float(float32(scale)))
	}
	if u.Key.Rotate {
		x = u.acrossLanes(u.butterfly(x), []int{1, 2, 4, 8, 16})
	}
	u.StoreShared(u.Add(to, u.Mul(u.lane, u.Int(16))), 0, x...)
	u.Meet()
}

// butterfly is the product with the matrix of [numbers.Hadamard], not scaled, over the numbers of a
// lane.
func (u *units) butterfly(x []ptx.Value) []ptx.Value {
	for apart := 1; apart < len(x); apart *= 2 {
		next := make([]ptx.Value, len(x))
		for i := range x {
			if i&apart == 0 {
				next[i], next[i|apart] = u.FAdd(x[i], x[i|apart]), u.FSub(x[i], x[i|apart])
			}
		}
		x = next
	}
	return x
}

// acrossLanes goes on with it over lanes whose numbers differ in one bit.
func (u *units) acrossLanes(x []ptx.Value, masks []int) []ptx.Value {
	for _, mask := range masks {
		sign := u.Select(u.Equal(u.And(u.lane, u.Int(mask)), u.Int(0)), u.Float(1), u.Float(-1))
		next := make([]ptx.Value, len(x))
		for i, v := range x {
			next[i] = u.FMulAdd(v, sign, u.Across(v, mask))
		}
		x = next
	}
	return x
}

// byteColumns are a group's queries times scales, as columns, and what scores have beside products.
type byteColumns struct {
	planes      [][]ptx.Value
	column, sum ptx.Value
}

// columns makes them of the scales in shared memory.
func (k byteKeys) columns(u *units, at ptx.Value, scales, zeros int) (c byteColumns) {
	var unit, back ptx.Value
	for i, p := range k.planes {
		scale, zero := p.scales.load(u, u.Key, u.Add(at, p.scales.at), scales, zeros)
		var x [4]ptx.Value
		for j := range x {
			x[j] = u.FMul(p.q[j], scale[j])
		}
		if i == 0 {
			sum := u.Float(0)
			for j := range x {
				if u.Key.HasZeros() {
					sum = u.FMulAdd(p.q[j], zero[j], sum)
				} else {
					sum = u.FMulAdd(x[j], u.Float(-float32(u.Key.Spec.Middle())), sum)
				}
			}
			for _, mask := range []int{1, 2, 4, 8, 16} {
				sum = u.FAdd(sum, u.Across(sum, mask))
			}
			c.sum = sum
			unit, back = u.stepOf(x, k.bits)
			c.column = u.FMul(back, k.column)
		}
		u.digits(x, u.FMul(unit, p.factor), k.to, i*digitsSize)
	}
	u.Meet()
	for i := range k.planes {
		c.planes = append(c.planes, append(u.LoadShared(4, k.from, i*digitsSize), u.LoadShared(4, k.from, i*digitsSize+16)...))
	}
	return c
}

// scores are those of tokens 4g to 4g + 3 of a block.
func (k byteKeys) scores(u *units, at ptx.Value, keys int, by byteColumns) []ptx.Value {
	zero := u.Int(0)
	c := [2][4]ptx.Value{{zero, zero, zero, zero}, {zero, zero, zero, zero}}
	for i, p := range k.planes {
		lane := u.Add(at, p.rows)
		var words [4][]ptx.Value
		for w := range p.words {
			for token, x := range u.LoadShared(4, lane, keys+128*(p.First+w)) {
				words[token] = append(words[token], x)
			}
		}
		for tile := range c {
			c[tile] = u.byteProducts(p.registers(u, words[2*tile], 8), p.registers(u, words[2*tile+1], 8), by.planes[i], c[tile])
		}
	}
	scores := make([]ptx.Value, 4)
	for i := range scores {
		x := u.FMul(u.twoColumns(c[i/2][i%2*2:]), by.column)
		scores[i] = u.FAdd(u.FAdd(x, u.Across(x, 1)), by.sum)
	}
	return scores
}

// pair are the scores of both blocks of a pair; second tells whether there is a second one.
func (k byteKeys) pair(u *units, at, slope, second ptx.Value) (scores [2][]ptx.Value) {
	s := u.pairStage(u.Key)
	var by byteColumns
	for block := range scores {
		small := block * s.smallBytes
		if block == 0 || s.scalesApart > 0 {
			if block > 0 {
				u.Meet()
			}
			by = k.columns(u, at, s.scales+block*s.scalesApart, s.zeros+block*s.scalesApart)
		}
		list := k.scores(u, at, block*s.codeBytes, by)
		if u.Key.TokenScales {
			for j, scale := range u.byteScales(u.Add(at, u.Mul(u.g, u.Int(4))), s.keyTokens+small) {
				list[j] = u.FMul(list[j], scale)
			}
		}
		for j, token := range u.LoadShared(4, u.Add(at, u.Mul(u.g, u.Int(16))), s.tokens+small) {
			list[j] = u.Select(u.visible(token), u.scored(list[j], slope, token), u.Float(maskedScore))
			if block == 1 {
				list[j] = u.Select(second, list[j], u.Float(outsideScore))
			}
		}
		scores[block] = list
	}
	return scores
}

// byteProducts adds products of registers of rows g and g + 8.
func (u *units) byteProducts(a, b, by []ptx.Value, c [4]ptx.Value) [4]ptx.Value {
	for n := 0; n < len(by); n += 2 {
		c = u.UnitsBytes([4]ptx.Value{a[n], b[n], a[n+1], b[n+1]}, [2]ptx.Value{by[n], by[n+1]}, c)
	}
	return c
}

// twoColumns are columns 2t and 2t + 1 of a sum, in the unit of the first.
func (u *units) twoColumns(c []ptx.Value) ptx.Value {
	return u.FromInt(u.MulAdd(c[1], u.Int(256), c[0]))
}
