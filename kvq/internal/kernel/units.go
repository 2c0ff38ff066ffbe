package kernel

import (
	"math"

	"github.com/gomlx/compute/dtypes"
	"github.com/kvqbook/kvqbook/internal/ptx"
	"github.com/kvqbook/kvqbook/kvq/internal/codes"
	"github.com/kvqbook/kvqbook/kvq/internal/numbers"
)

// The kernel by tensor units: see takesUnits for what it is for. It does what build does; its
// parameters and its grid are the same, but for queriesPerProgram. A program is one warp. Lane 4g +
// t is called (g, t).
//
// Products are [16, 16] x [16, 8]. Their rows are tokens (scores) or channels (outputs), their
// columns queries: column 2q what query q is in bfloat16, column 2q + 1 what that leaves over, also
// in bfloat16. So 16 bits of a query count. What is summed over are 32 rows of codes at once, a
// slice: channels of keys, tokens of values. Scales of tokens stay outside of the sums over
// channels; in sums over tokens they are multiplied with the weights.
//
// Codes are never converted. Two fields of a word are masked at a time, and each half of the word
// is taken for a bfloat16: code·2^(at-133), where the field begins at bit at. Below bit 9 these
// numbers are subnormal or as evenly spaced, and tensor units multiply them exactly. See
// [slicePlane].
//
// Arrays of a block are copied to shared memory by instructions that do not wait, unitsStages - 1
// blocks ahead.

// unitColumns is how many queries a program has.
const unitColumns = 4

// halfBias is the exponent of a bfloat16's last bit among subnormal numbers: 2^-133.
const halfBias = 133

// What queries and weights are multiplied by, so that products with codes are normal float32, and
// scales of 2^60 do not make them infinite.
const (
	queryScale   = 100
	channelScale = 48 // the same of queries times scales of channels
	weightScale  = 64
)

// unitsStages is how many blocks have room in shared memory: while one is computed with, the others
// are on their way.
const unitsStages = 3

// unitRegisters is the most registers of a lane. 168 let a processor run 12 programs at once. Where
// lanes share the work for a column (see parts), they hold fewer queries, and 128 are enough: 16
// programs. So they mostly are for the form by bytes.
func (k Attention) unitRegisters() int {
	if k.takesBytes() && k.residentBytes() > 12 || !k.takesBytes() && k.parts() > 1 {
		return 128
	}
	return 168
}

// unitsMost is the largest head dimension whose sums fit the registers.
const unitsMost = 128

// takesUnits tells whether the kernel by tensor units is for this shape: three queries a head or
// more, or keys with scales of channels. With fewer queries most of a product is for nothing. Where
// tokens have the scales, multiply-adds are then as fast. Where channels have, they are slower,
// since each block multiplies scales and queries anew.
func (k Attention) takesUnits() bool {
	if k.Queries < 3 && !k.Key.PerChannel || k.width() != k.dim() || k.dim() > unitsMost {
		return false
	}
	for _, f := range []codes.Format{k.Key, k.Value} {
		layout := f.Words()
		switch {
		case f.PerChannel && !f.Keys, f.PerChannel && f.Group&(f.Group-1) != 0:
			return false
		case layout.Bits != 32, layout.Rows%sliceRows != 0, f.Group%sliceRows != 0: // a slice has whole words of one group
			return false
		}
	}
	return true
}

// unitElem is the type of elements in memory.
func unitElem(d dtypes.DType) ptx.Elem {
	switch d {
	case dtypes.Float16:
		return ptx.F16
	case dtypes.BFloat16:
		return ptx.BF16
	}
	return ptx.F32
}

// unitScales is the type of scales that are no bytes.
func (k Attention) unitScales() ptx.Elem { return unitElem(k.storage.DType(dtypes.InvalidDType)) }

// scaleSize is the bytes of a scale, and of a zero point.
func (k Attention) scaleSize() int {
	if k.storage == numbers.Scale8 {
		return 1
	}
	return k.unitScales().Bytes()
}

// units is the kernel under construction.
type units struct {
	Attention
	*ptx.Kernel
	lane, g, t ptx.Value
	elem       ptx.Elem // of scales that are no bytes

	// Parameters: see build.
	q, rotated, position, used, index   ptx.Value
	keyCodes, keyScales, keyZeros       ptx.Value
	keyTokens                           ptx.Value // scales of tokens
	valueCodes, valueScales, valueZeros ptx.Value
	exactIndex, exactKeys, exactValues  ptx.Value
	slopes, top, sum, out               ptx.Value

	// Of the program: its head, row, first query and split, and the row's position.
	head, row, query, split, now ptx.Value
	always                       ptx.Value // true

	offsets map[[ptx.Lanes]int]ptx.Value // in shared memory, by what the lanes have: see unitsslice.go
}

// shifted is v >> n, and v << -n below 0.
func (u *units) shifted(v ptx.Value, n int) ptx.Value {
	switch {
	case n < 0:
		return u.ShiftLeft(v, u.Int(-n))
	case n > 0:
		return u.ShiftRight(v, u.Int(n))
	}
	return v
}

// buildUnits writes the kernel.
func (k Attention) buildUnits() *ptx.Kernel {
	t := ptx.New(k.name() + "_units")
	t.Registers = k.unitRegisters()
	u := &units{Attention: k, Kernel: t, elem: k.unitScales(), offsets: map[[ptx.Lanes]int]ptx.Value{}}
	u.q = t.Pointer()
	u.rotated = u.q
	if k.Key.Rotate && !k.rotatesInside() {
		u.rotated = t.Pointer()
	}
	u.position, u.used, u.index = t.Pointer(), t.Pointer(), t.Pointer()
	u.keyCodes, u.keyScales = t.Pointer(), t.Pointer()
	u.keyZeros, u.valueZeros = u.keyScales, u.keyScales
	if k.Key.HasZeros() {
		u.keyZeros = t.Pointer()
	}
	if k.Key.TokenScales {
		u.keyTokens = t.Pointer()
	}
	u.valueCodes, u.valueScales = t.Pointer(), t.Pointer()
	if k.Value.HasZeros() {
		u.valueZeros = t.Pointer()
	}
	u.exactIndex, u.exactKeys, u.exactValues = t.Pointer(), t.Pointer(), t.Pointer()
	if len(k.Scores.Slopes) > 0 {
		u.slopes = t.Pointer()
	}
	u.top, u.sum, u.out = t.Pointer(), t.Pointer(), t.Pointer()

	u.lane = t.Lane()
	u.g, u.t = t.ShiftRight(u.lane, t.Int(2)), t.And(u.lane, t.Int(3))
	u.always = t.LessUnsigned(u.lane, t.Int(ptx.Lanes))
	part := t.Program(0)
	u.split = t.Program(1)
	u.head = t.Div(part, t.Int(k.programsOfHead()))
	first := t.Min(t.Mul(t.Rem(part, t.Int(k.programsOfHead())), t.Int(unitColumns)), t.Int(max(0, k.Queries-unitColumns)))
	u.query = t.Add(t.Mul(u.head, t.Int(k.Queries)), first)
	u.row = t.Div(u.head, t.Int(k.Heads))
	u.now = t.LoadWord(t.At(u.position, u.row, 4), 0)

	exact, end := t.NewLabel(), t.NewLabel()
	t.Branch(exact, t.Less(t.Int(k.splits-1), u.split))
	if k.takesBytes() {
		u.codedBytes()
	} else {
		u.coded()
	}
	t.Jump(end)
	t.Here(exact)
	u.exact()
	t.Here(end)
	return t
}

// visible tells whether a token is to be seen.
func (u *units) visible(token ptx.Value) ptx.Value {
	seen := u.LessUnsigned(token, u.Add(u.now, u.Int(1))) // an index of -1 is the largest
	if u.SlidingWindow > 0 {
		seen = u.Both(seen, u.Less(u.Sub(u.now, u.Int(u.SlidingWindow)), token))
	}
	return seen
}

// slope is that of a query of the program, times log2(e).
func (u *units) slope(r ptx.Value) ptx.Value {
	if len(u.Scores.Slopes) == 0 {
		return ptx.Value{}
	}
	at := u.Rem(u.Add(u.query, r), u.Int(u.Heads*u.Queries))
	return u.FMul(u.LoadWord(u.At(u.slopes, at, 4), 0), u.Float(math.Log2E))
}

// scored is [scoring.of].
func (u *units) scored(x, slope, token ptx.Value) ptx.Value {
	if c := u.Scores.SoftCap; c > 0 {
		c2 := float32(c * math.Log2E)
		power := u.Exp2(u.FMul(x, u.Float(float32(2/c))))
		x = u.FAdd(u.FDiv(u.Float(-2*c2), u.FAdd(power, u.Float(1))), u.Float(c2))
	}
	if len(u.Scores.Slopes) > 0 {
		x = u.FSub(x, u.FMul(slope, u.FromInt(u.Sub(u.now, token))))
	}
	return x
}

// realColumns is how many queries a program has.
func (k Attention) realColumns() int { return min(k.Queries, unitColumns) }

// place is where a program writes what belongs to its query r.
func (u *units) place(r ptx.Value) ptx.Value {
	return u.Add(u.Add(u.Mul(u.split, u.Int(u.Batch*u.Heads*u.Queries)), u.query), r)
}

// coded is a program that reads codes: its share of the blocks in use.
func (u *units) coded() {
	s := u.unitStage()
	blocks := u.ShiftRight(u.Add(u.LoadWord(u.At(u.used, u.row, 4), 0), u.Int(codes.BlockTokens-1)), u.Int(5))
	first := u.Div(u.Mul(u.split, blocks), u.Int(u.splits))
	last := u.Div(u.Mul(u.Add(u.split, u.Int(1)), blocks), u.Int(u.splits))
	shared := u.Shared(unitsStages * s.size)

	copies := u.newCopies(s, first, shared)
	for i := range unitsStages - 1 {
		copies.block(u.Less(u.Add(first, u.Int(i)), last))
	}
	from := u.ring(shared, s.size)

	queries := u.queries()
	slope := u.slope(u.column(u.t))
	state := u.newState()
	i := u.Variable(first)
	loop, done := u.NewLabel(), u.NewLabel()
	u.Branch(done, u.Less(u.Sub(last, u.Int(1)), i))
	u.Here(loop)
	u.Await(unitsStages - 2)
	copies.block(u.Less(u.Add(i, u.Int(unitsStages-1)), last))
	tokens := u.LoadShared(4, u.Add(from.at, u.Mul(u.g, u.Int(16))), s.tokens)
	scores := u.scores(from.at, s, queries)
	for j, token := range tokens {
		scores[j] = u.Select(u.visible(token), u.scored(scores[j], slope, token), u.Float(maskedScore))
	}
	state.add(from.at, s, scores)
	from.next()
	u.Set(i, u.Add(i, u.Int(1)))
	u.Branch(loop, u.Less(i, last))
	u.Here(done)
	state.store()
}
