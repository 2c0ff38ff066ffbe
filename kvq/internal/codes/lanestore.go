package codes

import (
	"math"

	"github.com/kvqbook/kvqbook/internal/ptx"
	"github.com/kvqbook/kvqbook/kvq/internal/numbers"
)

// How [encoder.laneKernel] makes codes of a lane's group, and packs and stores them.

// clear writes what an empty cache has: the program's slots are beyond the tokens.
func (l *lanes) clear() {
	k, f := l.k, l.format
	zeros := func(base, first ptx.Value, n, size int) { // n elements from first on, whole warps
		at := k.At(base, k.Add(first, l.lane), size)
		for i := 0; i < n; i += ptx.Lanes {
			k.StoreLow(size, at, i*size, k.Int(0))
		}
	}
	for part := range l.atOnce() / BlockTokens {
		block := l.block(part)
		if !l.fed {
			zeros(l.words, k.Mul(block, k.Int(f.blockWords())), f.blockWords(), 4)
		}
		if f.TokenScales {
			zeros(l.tokenScales, k.Mul(block, k.Int(BlockTokens)), BlockTokens, 1)
		}
	}
	group, groups := l.block(0), f.Groups()*BlockTokens // what a head has in a block, or in a unit
	if f.PerChannel {
		group, groups = l.ofUnit(), f.HeadDim
	}
	for _, base := range []ptx.Value{l.scales, l.zeros} {
		zeros(base, k.Mul(group, k.Int(groups)), groups, numbers.StoredBytes(f.Spec.Scales.KernelElem(l.from)))
	}
}

// encode makes ranges and codes of what is in the tile. usual says that all has a vote.
func (l *lanes) encode(usual bool) {
	if l.format.Keys {
		l.encodeKeys(usual)
	} else {
		l.encodeValues(usual)
	}
}

// finiteBits sets the bits of elements that are finite numbers.
func (l *lanes) finiteBits(list []ptx.Value) []ptx.Value {
	k, bits := l.k, make([]ptx.Value, len(list)/32)
	for i, x := range list {
		bit := k.Select(k.Finite(x), k.Bits(1<<(i%32)), k.Int(0))
		if i%32 > 0 {
			bit = k.Or(bits[i/32], bit)
		}
		bits[i/32] = bit
	}
	return bits
}

// encodeValues makes those of values: a lane has a token, and each turn is a group of its channels.
func (l *lanes) encodeValues(usual bool) {
	k, f := l.k, l.format
	valid := k.Select(k.Equal(k.And(k.ShiftRight(l.voting[0], l.lane), k.Int(1)), k.Int(0)), k.Int(0), k.Bits(math.MaxUint32))
	row := k.Add(l.tile, k.Mul(l.lane, k.Int(l.pitch()*4)))
	block := l.block(0)
	turn, next := k.Variable(k.Int(0)), k.NewLabel()
	k.Here(next)
	at := k.Add(row, k.Mul(turn, k.Int(f.Group*2)))
	var group numbers.LaneGroup
	for offset := 0; offset < f.Group*2; offset += 16 {
		for _, word := range k.LoadShared(4, at, offset) {
			group.X = append(group.X, k.Low(laneElems[l.from], word), k.High(laneElems[l.from], word))
		}
	}
	if !usual {
		for _, bits := range l.finiteBits(group.X) {
			group.Usable, group.Voting = append(group.Usable, k.And(bits, valid)), append(group.Voting, valid)
		}
	}
	out := f.Spec.EncodeInLane(k, group, l.from)
	l.storeRange(k.Add(k.Mul(k.Add(k.Mul(block, k.Int(f.Groups())), turn), k.Int(BlockTokens)), l.lane), out)
	l.store(out.Codes, func(p Plane, first int) ptx.Value {
		word := k.Add(k.Div(l.lane, k.Int(p.Fields)), k.Int(p.First))
		channel := k.Add(k.Add(k.Mul(turn, k.Int(f.Group)), k.Int(first)), k.And(l.lane, k.Int(p.Fields-1)))
		return k.Add(k.Mul(k.Add(k.Mul(block, k.Int(f.WordsOfPart())), word), k.Int(f.HeadDim)), channel)
	})
	k.Set(turn, k.Add(turn, k.Int(1)))
	if f.Groups() > 1 {
		k.Branch(next, k.Less(turn, k.Int(f.Groups())))
	}
}

// storeRange writes scale and zero point of the lane's group.
func (l *lanes) storeRange(place ptx.Value, out numbers.LaneCodes) {
	size := numbers.StoredBytes(l.format.Spec.Scales.KernelElem(l.from))
	l.k.StoreLow(size, l.k.At(l.scales, place, size), 0, out.Scales)
	l.k.StoreLow(size, l.k.At(l.zeros, place, size), 0, out.Zeros)
}

// encodeKeys makes those of keys: a lane has a channel, and each turn is 32 of them.
func (l *lanes) encodeKeys(usual bool) {
	k, f := l.k, l.format
	unit := k.Mul(l.ofUnit(), k.Int(f.HeadDim))
	fedUnit := k.Mul(k.Add(k.Mul(l.rowAndHead, k.Int(l.slots/f.Group)), l.unit), k.Int(f.HeadDim))
	layout := f.Words()
	l.channels(func(column, channel ptx.Value) {
		read := make([]ptx.Value, f.Group)
		group := numbers.LaneGroup{X: l.column(column, func(token int, x, factor ptx.Value) ptx.Value {
			read[token] = x
			if !f.TokenScales {
				return x
			}
			units := k.FMul(x, factor)
			if !usual { // where they may be too large
				units = k.FMin(k.FMax(units, k.Float(-math.MaxFloat32)), k.Float(math.MaxFloat32))
				units = k.Select(k.Finite(x), units, x)
			}
			return units
		})}
		if f.TokenScales {
			var factors []ptx.Value // of four tokens
			group.Weight = func(token int) ptx.Value {
				if token%4 == 0 {
					factors = k.LoadShared(4, l.factors, token*4)
				}
				return k.FMul(factors[token%4], factors[token%4])
			}
		}
		if !usual {
			group.Voting = l.voting
			for i, bits := range l.finiteBits(read) {
				group.Usable = append(group.Usable, k.And(bits, l.voting[i]))
			}
		}
		out := f.Spec.EncodeInLane(k, group, l.from)
		l.storeRange(k.Add(unit, channel), out)
		if l.fed {
			l.storeFedRange(k.Add(fedUnit, channel), out)
			return
		}
		l.store(out.Codes, func(p Plane, first int) ptx.Value {
			word := k.Div(channel, k.Int(p.Fields))
			part := k.Add(k.Mul(l.block(first/BlockTokens), k.Int(layout.Parts)), k.Div(word, k.Int(p.Count)))
			word = k.Add(k.Mul(part, k.Int(f.WordsOfPart())), k.Add(k.Rem(word, k.Int(p.Count)), k.Int(p.First)))
			token := k.Add(k.Int(first%BlockTokens), k.And(l.lane, k.Int(p.Fields-1)))
			return k.Add(k.Mul(word, k.Int(BlockTokens)), token)
		})
	})
}

// storeFedRange writes how the lane's channel is to be rounded: see [fedRange].
func (l *lanes) storeFedRange(place ptx.Value, out numbers.LaneCodes) {
	k := l.k
	last, nan := float32(int(1)<<l.format.Bits-1), k.Float(float32(math.NaN()))
	width := k.Select(k.FLess(k.Float(0), out.Width), out.Width, k.Float(1))
	perStep := k.Select(k.FLess(k.Float(0), out.Scale), k.FQuotient(k.Float(1), width), nan)
	for i, x := range []ptx.Value{out.Scale, out.Zero, k.FAdd(out.Zero, k.FMul(out.Scale, k.Float(last/2))), perStep} {
		k.StoreLow(4, k.At(l.ranges[i], place, 4), 0, x)
	}
}

// store packs the codes of the lane's group and writes the words that lanes exchange: place says
// where the one lies that begins with an element of its lanes' groups.
func (l *lanes) store(codes []ptx.Value, place func(p Plane, first int) ptx.Value) {
	k, f := l.k, l.format
	for _, p := range f.Planes() {
		for first := 0; first < len(codes); first += p.Fields {
			packed := k.Int(0)
			for i := range p.Fields {
				x := codes[first+i]
				if p.Low > 0 {
					x = k.ShiftRight(x, k.Int(p.Low))
				}
				if p.Low+p.Width < f.Bits {
					x = k.And(x, k.Int(1<<p.Width-1))
				}
				if i > 0 {
					x = k.ShiftLeft(x, k.Int(i*p.Width))
				}
				packed = k.Or(packed, x)
			}
			k.StoreLow(4, k.At(l.words, place(p, first), 4), 0, l.exchange(packed, p.Fields, p.Width))
		}
	}
}

// exchange turns words of so many lanes around: lane i gets field i of the word of each, that of
// lane j as field j. In each round fields of lanes whose numbers differ in a bit change places.
func (l *lanes) exchange(x ptx.Value, fields, width int) ptx.Value {
	k := l.k
	for mask := fields / 2; mask > 0; mask /= 2 {
		var low uint32 // fields whose number has no bit of mask
		for i := range fields {
			if i&mask == 0 {
				low |= (1<<width - 1) << (i * width)
			}
		}
		lower := k.Equal(k.And(l.lane, k.Int(mask)), k.Int(0))
		own := k.Select(lower, k.Bits(low), k.Bits(^low))
		other, shift := k.Across(x, mask), k.Int(mask*width)
		other = k.Select(lower, k.ShiftLeft(other, shift), k.ShiftRight(other, shift))
		x = k.Or(k.And(x, own), k.And(other, k.Xor(own, k.Bits(math.MaxUint32))))
	}
	return x
}
