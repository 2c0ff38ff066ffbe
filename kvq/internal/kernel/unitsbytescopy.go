package kernel

import (
	"math/bits"

	"github.com/kvqbook/kvqbook/internal/ptx"
	"github.com/kvqbook/kvqbook/kvq/internal/codes"
)

// pairCopies bring one side of one pair after the other to shared memory.
type pairCopies struct {
	u    *units
	into ptx.Value // where they go
	next ptx.Value // first block of the next pair
	last ptx.Value // of the program
	list []pairCopy
}

// pairCopy is a piece of 16 bytes of every lane, or of some.
type pairCopy struct {
	from   ptx.Value // where block 0 has it
	offset int
	block  ptx.Value // of the pair: 0 or 1
	shift  ptx.Value // log2 of how many blocks share it
	stride ptx.Value // bytes from a block to the next
	to     ptx.Value // from where the stage begins
	at     int
	lanes  ptx.Value
}

func (u *units) newPairCopies(at, first, last ptx.Value) *pairCopies {
	return &pairCopies{u: u, into: at, next: u.Variable(first), last: last}
}

func (u *units) keyCopies(at, first, last ptx.Value) *pairCopies {
	s := u.pairStage(u.Key)
	c := u.newPairCopies(at, first, last)
	owner := map[int]int{} // lane t that reads a row of words
	layout := u.Key.Words()
	for _, p := range u.Key.Planes() {
		for t := range 4 {
			for w := range p.Width {
				owner[32*t/layout.Rows*u.Key.WordsOfPart()+p.First+32*t%layout.Rows/32*p.Width+w] = t
			}
		}
	}
	c.codes(u.Key, u.keyCodes, func(_, chunk int) (list [4]int) {
		for i := range list {
			list[i] = owner[4*chunk+i]
		}
		return list
	})
	var arrays []pairArray
	for block := range 2 {
		const tokens = 4 * codes.BlockTokens
		arrays = append(arrays, pairArray{u.index, u.Mul(u.row, u.Int(u.Blocks)), tokens, tokens, 0, block})
		if u.Key.TokenScales {
			arrays = append(arrays, c.array(u.keyTokens, codes.BlockTokens, 0, block))
		}
		if s.scalesApart > 0 {
			arrays = append(arrays, c.scales(u.Key, block, u.keyScales, u.keyZeros)...)
		}
	}
	if s.scalesApart == 0 {
		arrays = append(arrays, c.scales(u.Key, 0, u.keyScales, u.keyZeros)...)
	}
	c.small(s.small, arrays)
	return c
}

func (u *units) valueCopies(at, first, last ptx.Value) *pairCopies {
	s := u.pairStage(u.Value)
	c := u.newPairCopies(at, first, last)
	half := map[int]int{} // of a block, whose lanes read a row of words
	for _, p := range u.Value.Planes() {
		for w := range p.Width {
			half[p.First+w] = 2 * w / p.Width
		}
	}
	c.codes(u.Value, u.valueCodes, func(block, chunk int) [4]int {
		t := 2*block + half[chunk]
		return [4]int{t, t, t, t}
	})
	c.small(s.small, append(c.scales(u.Value, 0, u.valueScales, u.valueZeros), c.scales(u.Value, 1, u.valueScales, u.valueZeros)...))
	return c
}

// codes are copies of codes of both blocks. Lanes read piece g of the row that t says, so pieces
// change places by twice the t that reads their row; owners are those of the four rows of a chunk
// of 512 bytes.
func (c *pairCopies) codes(f codes.Format, from ptx.Value, owners func(block, chunk int) [4]int) {
	u, bytes := c.u, codeBytes(f)
	from = u.At(u.At(from, u.head, bytes), u.lane, 16)
	places := map[[4]int]ptx.Value{}
	for block := range 2 {
		for chunk := range bytes / (16 * ptx.Lanes) {
			key := owners(block, chunk)
			to, ok := places[key]
			if !ok {
				packed := u.Int(key[0] | key[1]<<2 | key[2]<<4 | key[3]<<6)
				owner := u.And(u.ShiftRight(packed, u.Mul(u.ShiftRight(u.lane, u.Int(3)), u.Int(2))), u.Int(3))
				to = u.Mul(u.Xor(u.lane, u.Mul(owner, u.Int(2))), u.Int(16))
				places[key] = to
			}
			at := 16 * ptx.Lanes * chunk
			c.list = append(c.list, pairCopy{from: from, offset: at, block: u.Int(block), shift: u.Int(0),
				stride: u.Int(u.Batch * u.Heads * bytes), to: to, at: block*bytes + at, lanes: u.always})
		}
	}
}

// pairArray is a small array.
type pairArray struct {
	at, unit             ptx.Value // where it begins, and what of block 0 it begins with
	bytes, stride, shift int
	block                int
}

func (c *pairCopies) array(at ptx.Value, bytes, shift, block int) pairArray {
	return pairArray{at, c.u.head, bytes, c.u.Batch * c.u.Heads * bytes, shift, block}
}

func (c *pairCopies) scales(f codes.Format, block int, scales, zeros ptx.Value) []pairArray {
	shift := 0
	if f.PerChannel {
		shift = bits.TrailingZeros(uint(f.Group / codes.BlockTokens))
	}
	list := []pairArray{c.array(scales, c.u.scaleBytes(f), shift, block)}
	if f.HasZeros() {
		list = append(list, c.array(zeros, c.u.scaleBytes(f), shift, block))
	}
	return list
}

// small are copies of small arrays, one after the other, to a place of the stage.
func (c *pairCopies) small(to int, arrays []pairArray) {
	u, pieces := c.u, 0
	for _, a := range arrays {
		pieces += a.bytes / 16
	}
	for done := 0; done < pieces; done += ptx.Lanes {
		piece := u.Add(u.lane, u.Int(done))
		x := pairCopy{to: u.Mul(u.lane, u.Int(16)), at: to + 16*done, lanes: u.always}
		if done+ptx.Lanes > pieces {
			x.lanes = u.LessUnsigned(piece, u.Int(pieces))
		}
		begin, some := 0, false
		for _, a := range arrays {
			n := a.bytes / 16
			if begin+n > done && begin < done+ptx.Lanes {
				at := u.At(u.At(a.at, a.unit, a.bytes), u.Sub(piece, u.Int(begin)), 16) // of no use in lanes before it
				from, block, shift, stride := at, u.Int(a.block), u.Int(a.shift), u.Int(a.stride)
				if some {
					before := u.LessUnsigned(piece, u.Int(begin))
					from, block = u.Select(before, x.from, from), u.Select(before, x.block, block)
					shift, stride = u.Select(before, x.shift, shift), u.Select(before, x.stride, stride)
				}
				x.from, x.block, x.shift, x.stride, some = from, block, shift, stride, true
			}
			begin += n
		}
		c.list = append(c.list, x)
	}
}

// pair begins to copy the next pair, where there is one, and goes on to the one after it. A block
// beyond the last is the last one.
func (c *pairCopies) pair() {
	u := c.u
	inside := u.Less(c.next, c.last)
	end := u.Sub(c.last, u.Int(1))
	from, to := map[[2]ptx.Value]ptx.Value{}, map[ptx.Value]ptx.Value{}
	for _, x := range c.list {
		key := [2]ptx.Value{x.from, x.block}
		if _, ok := from[key]; !ok {
			block := u.ShiftRight(u.Min(u.Add(c.next, x.block), end), x.shift)
			from[key] = u.AtBy(x.from, block, x.stride)
		}
		if _, ok := to[x.to]; !ok {
			to[x.to] = u.Add(x.to, c.into)
		}
		lanes := inside
		if x.lanes != u.always {
			lanes = u.Both(inside, x.lanes)
		}
		u.Copy(lanes, to[x.to], x.at, from[key], x.offset)
	}
	u.Commit()
	u.Set(c.next, u.Add(c.next, u.Int(2)))
}
