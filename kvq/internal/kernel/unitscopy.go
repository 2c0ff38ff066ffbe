package kernel

import (
	"math/bits"

	"github.com/kvqbook/kvqbook/internal/ptx"
	"github.com/kvqbook/kvqbook/kvq/internal/codes"
)

// stage is where the arrays of a block lie in shared memory, in bytes from where its stage begins.
type stage struct {
	keys, values                                 int
	keyScales, keyZeros, valueScales, valueZeros int
	keyTokens                                    int
	tokens                                       int
	size                                         int
}

// codeBytes are the bytes of a block of codes, and scaleBytes those of the scales that it needs.
func codeBytes(f codes.Format) int {
	rows, lanes := f.Matrix()
	return rows * lanes * f.Bits / 8
}

func (k Attention) scaleBytes(f codes.Format) int {
	if f.PerChannel {
		return f.HeadDim * k.scaleSize()
	}
	return f.Groups() * codes.BlockTokens * k.scaleSize()
}

// unitStage lays the arrays out.
func (k Attention) unitStage() stage {
	var s stage
	next := func(to *int, bytes int) { *to, s.size = s.size, s.size+bytes }
	next(&s.keys, codeBytes(k.Key))
	next(&s.values, codeBytes(k.Value))
	next(&s.keyScales, k.scaleBytes(k.Key))
	if s.keyZeros = s.keyScales; k.Key.HasZeros() {
		next(&s.keyZeros, k.scaleBytes(k.Key))
	}
	next(&s.valueScales, k.scaleBytes(k.Value))
	if s.valueZeros = s.valueScales; k.Value.HasZeros() {
		next(&s.valueZeros, k.scaleBytes(k.Value))
	}
	if k.Key.TokenScales {
		next(&s.keyTokens, codes.BlockTokens)
	}
	next(&s.tokens, 4*codes.BlockTokens)
	s.size = (s.size + 127) / 128 * 128
	return s
}

// ring is a place in shared memory that goes through the stages.
type ring struct {
	u         *units
	at, begin ptx.Value
	size      int
}

// ring begins at begin.
func (u *units) ring(begin ptx.Value, size int) *ring {
	return &ring{u, u.Variable(begin), begin, size}
}

// next goes on by one stage.
func (r *ring) next() {
	u := r.u
	next := u.Add(r.at, u.Int(r.size))
	u.Set(r.at, u.Select(u.Equal(next, u.Add(r.begin, u.Int(unitsStages*r.size))), r.begin, next))
}

// copies bring the arrays of one block after the other to shared memory.
type copies struct {
	u       *units
	into    *ring
	list    []*copied
	current []ptx.Value // addresses that move from block to block
	strides []ptx.Value // bytes that they move by
	// Where keys have scales of channels, blocks share a group: addresses of small arrays stay, and
	// what is read is (next >> shift)·stride behind them.
	next   ptx.Value
	shifts []ptx.Value // by address, none for those that move
}

// copied is a piece of 16 bytes of every lane, or of some.
type copied struct {
	to       ptx.Value // of the lane, from where the stage begins
	toOffset int
	from     int // of copies.current
	offset   int
	lanes    ptx.Value
}

// newCopies are those of blocks from first on.
func (u *units) newCopies(s stage, first, shared ptx.Value) *copies {
	c := &copies{u: u, into: u.ring(shared, s.size)}
	c.codes(u.Key, u.keyCodes, s.keys, first)
	c.codes(u.Value, u.valueCodes, s.values, first)

	// What is small is one list of pieces.
	type array struct {
		at, unit      ptx.Value // where it begins, and which of its blocks is the first
		bytes, stride int       // of a block; between two blocks
		shift         int       // log2 of how many blocks share what is read
	}
	unit, heads := u.unit(first), u.Batch*u.Heads
	origin := first
	if u.Key.PerChannel {
		unit, origin, c.next = u.head, u.Int(0), u.Variable(first)
	}
	var arrays []array
	add := func(f codes.Format, list ...ptx.Value) {
		shift := 0
		if f.PerChannel {
			shift = bits.TrailingZeros(uint(f.Group / codes.BlockTokens))
		}
		for _, at := range list {
			arrays = append(arrays, array{at, unit, u.scaleBytes(f), heads * u.scaleBytes(f), shift})
		}
	}
	add(u.Key, u.keyScales)
	if u.Key.HasZeros() {
		add(u.Key, u.keyZeros)
	}
	add(u.Value, u.valueScales)
	if u.Value.HasZeros() {
		add(u.Value, u.valueZeros)
	}
	if u.Key.TokenScales {
		const each = codes.BlockTokens
		arrays = append(arrays, array{u.keyTokens, unit, each, heads * each, 0})
	}
	const tokens = 4 * codes.BlockTokens
	arrays = append(arrays, array{u.index, u.Add(u.Mul(u.row, u.Int(u.Blocks)), origin), tokens, tokens, 0})
	pieces := 0
	for _, a := range arrays {
		pieces += a.bytes / 16
	}
	to := u.Mul(u.lane, u.Int(16))
	for done := 0; done < pieces; done += ptx.Lanes {
		piece := u.Add(u.lane, u.Int(done))
		var from, stride, shift ptx.Value
		begin := 0
		for _, a := range arrays {
			n := a.bytes / 16
			if begin+n > done && begin < done+ptx.Lanes {
				at := u.At(u.At(a.at, a.unit, a.bytes), u.Sub(piece, u.Int(begin)), 16) // of no use in lanes before it
				if from == (ptx.Value{}) {
					from, stride, shift = at, u.Int(a.stride), u.Int(a.shift)
				} else {
					before := u.LessUnsigned(piece, u.Int(begin))
					from, stride = u.Select(before, from, at), u.Select(before, stride, u.Int(a.stride))
					shift = u.Select(before, shift, u.Int(a.shift))
				}
			}
			begin += n
		}
		lanes := u.always
		if done+ptx.Lanes > pieces {
			lanes = u.LessUnsigned(piece, u.Int(pieces))
		}
		if !u.Key.PerChannel {
			shift = ptx.Value{}
		}
		c.current, c.strides, c.shifts = append(c.current, u.Variable(from)), append(c.strides, stride), append(c.shifts, shift)
		c.list = append(c.list, &copied{to, s.keyScales + 16*done, len(c.current) - 1, 0, lanes})
	}
	return c
}

// unit is a block of the program's head, counted in blocks of all heads.
func (u *units) unit(block ptx.Value) ptx.Value {
	return u.Add(u.Mul(block, u.Int(u.Batch*u.Heads)), u.head)
}

// codes are copies of the codes of a block, whose pieces change places (see swap).
func (c *copies) codes(f codes.Format, from ptx.Value, to int, first ptx.Value) {
	u, bytes := c.u, codeBytes(f)
	_, lanes := f.Matrix()
	pieces := lanes / 4 // of a row
	c.current = append(c.current, u.Variable(u.At(u.At(from, u.unit(first), bytes), u.lane, 16)))
	c.strides, c.shifts = append(c.strides, u.Int(u.Batch*u.Heads*bytes)), append(c.shifts, ptx.Value{})
	for done := 0; done < bytes/16; done += ptx.Lanes {
		var key [ptx.Lanes]int
		for lane := range key {
			key[lane] = 16 * (lane ^ swap(f.Bits, (done+lane)/pieces))
		}
		offset, ok := u.offsets[key]
		if !ok {
			row := u.shifted(u.Add(u.lane, u.Int(done)), bits.TrailingZeros(uint(pieces)))
			swap := u.Mul(u.And(u.shifted(row, swapShift(f.Bits)), u.Int(3)), u.Int(2))
			offset = u.Mul(u.Xor(u.lane, swap), u.Int(16))
			u.offsets[key] = offset
		}
		inside := u.always
		if done+ptx.Lanes > bytes/16 {
			inside = u.LessUnsigned(u.lane, u.Int(bytes/16-done))
		}
		c.list = append(c.list, &copied{offset, to + 16*done, len(c.current) - 1, 16 * done, inside})
	}
}

// block begins to copy the next block where the condition holds, and goes on to the one after it.
func (c *copies) block(condition ptx.Value) {
	u := c.u
	places := map[ptx.Value]ptx.Value{}
	for _, x := range c.list {
		to, ok := places[x.to]
		if !ok {
			to = u.Add(x.to, c.into.at)
			places[x.to] = to
		}
		lanes := condition
		if x.lanes != u.always {
			lanes = u.Both(condition, x.lanes)
		}
		at := c.current[x.from]
		if shift := c.shifts[x.from]; shift != (ptx.Value{}) {
			at = u.AtBy(at, u.ShiftRight(c.next, shift), c.strides[x.from])
		}
		u.Copy(lanes, to, x.toOffset, at, x.offset)
	}
	u.Commit()
	for i, at := range c.current {
		if c.shifts[i] == (ptx.Value{}) {
			u.Set(at, u.At(at, c.strides[i], 1))
		}
	}
	if u.Key.PerChannel {
		u.Set(c.next, u.Add(c.next, u.Int(1)))
	}
	c.into.next()
}
