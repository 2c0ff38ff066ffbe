package codes

import (
	"github.com/kvqbook/kvqbook/internal/ptx"
	"github.com/kvqbook/kvqbook/internal/ttir"
)

// Encode as a kernel for CUDA in which a lane has a whole group: a channel of keys, or some
// channels of a token of values. A warp takes the tokens of a unit of a head, rotates them by
// tensor units into shared memory, and then goes through the groups, 32 at a time. A word of codes
// holds those of neighbouring groups, which lanes exchange among themselves.
//
// Most programs have numbers with a vote alone. For the others all is written a second time, so
// that those pay nothing for it.

// lanes is the kernel under construction.
type lanes struct {
	encoder
	k *ptx.Kernel

	x, firsts, valid                  ptx.Value
	words, scales, zeros, tokenScales ptx.Value
	turned, perToken                  ptx.Value    // what is rounded with feedback, see [encoder.fedKernel]
	ranges                            [4]ptx.Value // see [fedRange]
	lane, row, head, rowAndHead, unit ptx.Value
	tile                              ptx.Value // of shared memory
	factors                           ptx.Value // a number a token, behind the tile
	voting                            []ptx.Value
}

var laneElems = map[ttir.Elem]ptx.Elem{ttir.F16: ptx.F16, ttir.BF16: ptx.BF16}

// byLanes reports whether this kernel makes the codes. Tensor units rotate numbers of 16 bits, for
// which 1 and -1 are exact.
func (e encoder) byLanes() bool {
	f := e.format
	return f.Keys == f.PerChannel && f.Rotate && e.from != ttir.F32 && f.Spec.InLane(f.Group) && f.HeadDim%ptx.Lanes == 0
}

// pitch is how many words lie between a row of the tile and the next: four more than it has, so
// that lanes that take rows beside one another do not meet in a bank. A row has a word a channel of
// keys, of two tokens, and else a word for two channels of a token.
func (l *lanes) pitch() int {
	if l.format.Keys {
		return l.format.HeadDim + 4
	}
	return l.format.HeadDim/2 + 4
}

// tileBytes is the size of the tile.
func (l *lanes) tileBytes() int {
	rows := l.atOnce()
	if l.format.Keys {
		rows /= 2
	}
	return rows * l.pitch() * 4
}

// laneKernel writes it, for a grid of [B·K, slots/…] programs of a warp.
//
//	x      [B, …, K, D], of 16 bits
//	first  int32 [B]: where a row's tokens begin; past the end of x, its last token repeats
//	valid  uint8 [B, T], where some tokens are not valid
//	-> the arrays of [encoder.outputs]
func (e encoder) laneKernel() *ptx.Kernel {
	f := e.format
	k := ptx.New("encode_lanes")
	k.Registers = 255
	switch {
	case f.Group == ptx.Lanes:
		k.Registers = 128 // as many programs as an H100 gets of a prompt of 2,048
	case !f.Keys:
		k.Registers = 168
	}
	l := &lanes{encoder: e, k: k, x: k.Pointer(), firsts: k.Pointer()}
	if e.masked {
		l.valid = k.Pointer()
	}
	if !e.fed {
		l.words = k.Pointer()
	}
	l.scales, l.zeros = k.Pointer(), k.Pointer()
	if f.TokenScales {
		l.tokenScales = k.Pointer()
	}
	if e.fed {
		l.turned, l.perToken = k.Pointer(), k.Pointer()
		for i := range l.ranges {
			l.ranges[i] = k.Pointer()
		}
	}
	l.lane, l.rowAndHead, l.unit = k.Lane(), k.Program(0), k.Program(1)
	l.row, l.head = k.Div(l.rowAndHead, k.Int(e.heads)), k.Rem(l.rowAndHead, k.Int(e.heads))
	l.tile = k.Shared(l.tileBytes() + e.atOnce()*4)
	l.factors = k.Add(l.tile, k.Int(l.tileBytes()))

	scaled, plain, votes, empty, end := k.NewLabel(), k.NewLabel(), k.NewLabel(), k.NewLabel(), k.NewLabel()
	if e.slots > e.tokens {
		k.Branch(empty, k.Less(k.Int(e.tokens/e.atOnce()-1), l.unit))
	}
	usual := l.read()
	k.Branch(scaled, usual)
	l.scaleTokens(false)
	k.Jump(votes)
	k.Here(scaled)
	k.Branch(plain, l.scaleTokens(true))
	k.Here(votes)
	l.encode(false)
	k.Jump(end)
	k.Here(plain)
	l.encode(true)
	if e.slots > e.tokens {
		k.Jump(end)
		k.Here(empty)
		l.clear()
	}
	k.Here(end)
	return k
}
