package kernel

import (
	"github.com/kvqbook/kvqbook/internal/ptx"
	"github.com/kvqbook/kvqbook/kvq/internal/codes"
)

// pairSide is where the arrays of one side of a pair lie in shared memory, in bytes from where its
// stage begins: codes of the first block and of the second, then what is small: of the first block,
// of the second, and scales of channels where both share them.
type pairSide struct {
	codeBytes         int // of a block
	scales, zeros     int
	keyTokens, tokens int // of keys: scales of tokens, and their indices
	small, smallBytes int // where it begins, bytes of a block
	scalesApart       int // from the first block's scales to the second's; 0: shared
	size              int
}

// pairStage lays the arrays of a side out.
func (k Attention) pairStage(f codes.Format) pairSide {
	s := pairSide{codeBytes: codeBytes(f)}
	s.small = 2 * s.codeBytes
	at := s.small
	next := func(to *int, bytes int) { *to, at = at, at+bytes }
	shared := f.PerChannel && f.Group > codes.BlockTokens
	scales := func() {
		next(&s.scales, k.scaleBytes(f))
		if s.zeros = s.scales; f.HasZeros() {
			next(&s.zeros, k.scaleBytes(f))
		}
	}
	if f.Keys {
		next(&s.tokens, 4*codes.BlockTokens)
		if f.TokenScales {
			next(&s.keyTokens, codes.BlockTokens)
		}
	}
	if !shared {
		scales()
	}
	s.smallBytes = at - s.small
	at += s.smallBytes
	if shared {
		scales()
	} else {
		s.scalesApart = s.smallBytes
	}
	s.size = (at + 127) / 128 * 128
	return s
}

// pairShared is how the shared memory of a program is used: keys, values, digits, weights.
func (k Attention) pairShared() (values, digits, weights, size int) {
	values = k.pairStage(k.Key).size
	digits = values + k.pairStage(k.Value).size
	weights = digits + 2*digitsSize
	return values, digits, weights, weights + 2*weightsOfBlock
}

// codedBytes is a program that reads codes, two blocks at a time. What a pair leaves free in shared
// memory is filled at once: keys while values are computed with, and the other way around.
func (u *units) codedBytes() {
	blocks := u.ShiftRight(u.Add(u.LoadWord(u.At(u.used, u.row, 4), 0), u.Int(codes.BlockTokens-1)), u.Int(5))
	pairs := u.ShiftRight(u.Add(blocks, u.Int(1)), u.Int(1))
	share := func(split ptx.Value) ptx.Value {
		return u.Min(u.Mul(u.Div(u.Mul(split, pairs), u.Int(u.splits)), u.Int(2)), blocks)
	}
	first, last := share(u.split), share(u.Add(u.split, u.Int(1)))
	valuesAt, digits, weights, size := u.pairShared()
	shared := u.Shared(size)

	copies := [2]*pairCopies{
		u.keyCopies(shared, first, last),
		u.valueCopies(u.Add(shared, u.Int(valuesAt)), first, last),
	}
	for _, c := range copies {
		c.pair()
	}
	keys := u.byteKeys(shared, digits)
	values := u.byteValues(shared, digits, weights)
	slope := u.slope(u.Int(0))
	i := u.Variable(first)
	loop, done := u.NewLabel(), u.NewLabel()
	u.Branch(done, u.Less(u.Sub(last, u.Int(1)), i))
	u.Here(loop)
	u.Await(1)
	scores := keys.pair(u, shared, slope, u.Less(u.Add(i, u.Int(1)), last))
	u.Meet()
	copies[0].pair()
	u.Await(1)
	values.add(u.Add(shared, u.Int(valuesAt)), scores)
	u.Meet()
	copies[1].pair()
	u.Set(i, u.Add(i, u.Int(2)))
	u.Branch(loop, u.Less(i, last))
	u.Here(done)
	values.store()
}
