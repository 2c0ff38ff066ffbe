package kernel

import (
	"fmt"
	"math"

	"github.com/gomlx/compute/dtypes"
	"github.com/kvqbook/kvqbook/internal/ttir"
	"github.com/kvqbook/kvqbook/kvq/internal/attend"
	"github.com/kvqbook/kvqbook/kvq/internal/codes"
	"github.com/kvqbook/kvqbook/kvq/internal/numbers"
)

// The kernel is flash decoding (Dao et al. 2023): attention over codes in one pass. A program is
// one warp. It walks its split of the blocks in use with a running maximum and writes an
// [attend.Partial]. Other programs of the same grid attend to sinks and window (exact.go). A second
// kernel merges the parts (merge.go). What it has to equal is attention by graph operations,
// package attend.

// Shape is what the kernel is made for.
type Shape struct {
	Key, Value            codes.Format
	Batch, Heads, Queries int // rows, key/value heads, queries of each
	Blocks                int // of codes, C/32
	Exact                 int // E, slots of sinks and window
	SlidingWindow         int // 0: no limit
	Scores                attend.Scores

	// of exact keys and values, and of scales that have no format of their own
	CacheType dtypes.DType
	QueryType dtypes.DType // of queries as they come in

	// Processors is how many multiprocessors the GPU has; 0: unknown, taken to be an H100's.
	Processors int
}

// Attention is the kernel for a shape that [attend.Choose] gives one. The zero value is not usable.
type Attention struct {
	Shape
	storage numbers.ScaleFormat // of scales, resolved
	// programs that share a head's blocks (split-K), blocks of an iteration, warps of a program
	splits, tile, warps int
	queriesPerProgram   int
	units               bool // by tensor units: units.go
}

// New chooses the form, and how the work is cut into programs.
func New(s Shape) Attention {
	k := Attention{Shape: s, storage: s.Key.Spec.Scales.Storage(s.CacheType), tile: 1, warps: 1}
	k.units = k.takesUnits()
	return k.cut()
}

// cut chooses how the work of the form is cut into programs.
func (k Attention) cut() Attention {
	k.queriesPerProgram = unitColumns
	if !k.units {
		// What takes codes out of words serves several queries; more of them do not fit a thread's
		// registers.
		for n := 1; n <= k.Queries; n++ {
			if k.Queries%n == 0 && n*k.width() <= 256 {
				k.queriesPerProgram = n
			}
		}
	}
	k.splits = k.chooseSplits()
	return k
}

// programsOfHead is how many programs share the queries of a head. Where these are no multiple of
// what a program takes, two programs do the same for some.
func (k Attention) programsOfHead() int {
	return (k.Queries + k.queriesPerProgram - 1) / k.queriesPerProgram
}

func (k Attention) dim() int { return k.Key.HeadDim }

// width is D with the padding of values.
func (k Attention) width() int {
	groups, channels := attend.KernelLanes(k.Value)
	return groups * channels
}

// scoreScale is what products are multiplied by.
func (k Attention) scoreScale() float64 { return k.Scores.Scale }

// In the kernel scores count log2(e) times, so that exponentials are powers of two.
const (
	maskedScore = attend.Masked / math.Ln2
	// of a slot that is another program's or nobody's: below what is merely masked
	outsideScore = 2 * maskedScore
)

// name tells kernels apart in a profile.
func (k Attention) name() string {
	return fmt.Sprintf("attend_%d_%d_codes", k.Key.Bits, k.Value.Bits)
}

// side is what the kernel reads of keys or of values.
type side struct {
	codes.Format
	k                    Attention
	codes, scales, zeros ttir.Value
	tokens               ttir.Value // scales of tokens
}

func (k Attention) side(t *ttir.Kernel, f codes.Format) side {
	s := side{Format: f, k: k, codes: t.Pointer(wordElem(f)), scales: t.Pointer(k.scaleElem())}
	if f.HasZeros() {
		s.zeros = t.Pointer(k.scaleElem())
	}
	if f.TokenScales {
		s.tokens = t.Pointer(elemOf(numbers.TokenScaleType))
	}
	return s
}

// wordElem is the type of words.
func wordElem(f codes.Format) ttir.Elem {
	switch f.Words().Bits {
	case 16:
		return ttir.I16
	case 8:
		return ttir.I8
	}
	return ttir.I32
}

// loadWords reads words as int32, whatever their size.
func (s side) loadWords(offset ttir.Value) ttir.Value {
	x := ttir.Load(s.codes, offset)
	if x.Elem == ttir.I32 {
		return x
	}
	return x.Wide()
}

func (k Attention) scaleElem() ttir.Elem { return elemOf(k.storage.DType(dtypes.InvalidDType)) }

func elemOf(dtype dtypes.DType) ttir.Elem {
	switch dtype {
	case dtypes.Float16:
		return ttir.F16
	case dtypes.BFloat16:
		return ttir.BF16
	case dtypes.Uint8:
		return ttir.I8
	}
	return ttir.F32
}

// build writes the kernel. Its grid is (B·K·Q / queriesPerProgram) x programs. Parameters, in
// order:
//
//	q [B, K, Q, D]; the same rotated and multiplied by scoreScale, float32, where keys are rotated
//	position [B] int32, the index of the token under way; used [B], codeIndex [B, C] int32
//	codes, scales, zeros, token scales of keys, then of values (see [codes.Blocks]; those there are)
//	exactIndex [B, E], exact keys and values [B, K, E, D]
//	slopes [H] float32, where there are any
//	max, sum [programs, B, K, Q] float32, out [programs, B, K, Q, width] float32: of rotated values
//	the output is rotated, that of exact ones not
func (k Attention) build() *ttir.Kernel {
	t := ttir.New(k.name())
	q := t.Pointer(elemOf(k.QueryType))
	rotated := q
	if k.Key.Rotate {
		rotated = t.Pointer(ttir.F32)
	}
	position, used, index := t.Pointer(ttir.I32), t.Pointer(ttir.I32), t.Pointer(ttir.I32)
	key, value := k.side(t, k.Key), k.side(t, k.Value)
	scoring := scoring{k: k, t: t}
	window := exactSide{k, q, t.Pointer(ttir.I32), t.Pointer(elemOf(k.CacheType)), t.Pointer(elemOf(k.CacheType))}
	if len(k.Scores.Slopes) > 0 {
		scoring.slopes = t.Pointer(ttir.F32)
	}
	top, sum, out := t.Pointer(ttir.F32), t.Pointer(ttir.F32), t.Pointer(ttir.F32)

	part, split := t.ProgramID(0), t.ProgramID(1)
	head, query := part.DivInt(k.Queries/k.queriesPerProgram), part.MulInt(k.queriesPerProgram)
	row := head.DivInt(k.Heads)
	blocks := ttir.Load(used, row).AddInt(codes.BlockTokens - 1).DivInt(codes.BlockTokens)
	share := blocks.AddInt(k.splits*k.tile - 1).DivInt(k.splits * k.tile).MulInt(k.tile)
	first := ttir.Mul(split, share)
	last := ttir.Min(ttir.Add(first, share), blocks)
	now := ttir.Load(position, row)
	visible := func(token ttir.Value) ttir.Value {
		seen := ttir.BitAnd(ttir.Less(t.Int(-1), token), ttir.LessOrEqual(token, now))
		if k.SlidingWindow > 0 {
			seen = ttir.BitAnd(seen, ttir.Less(now.AddInt(-k.SlidingWindow), token))
		}
		return seen
	}
	exact := window.attend(t, scoring, split, head, query, row, now, visible)

	queries := key.queries(t, rotated, query)
	rows := k.queriesPerProgram
	// Carried: for each query the largest score, the weights' sums and sums of zero points by slot,
	// and the output.
	var carried []ttir.Value
	slots := []int{k.tile, codes.BlockTokens}
	for r := range rows {
		state := value.initial(t)
		out := &state[len(state)-1]
		*out = exact[r].out.Reshape(out.Shape...)
		carried = append(append(carried, exact[r].best, t.Fill(t.Float(0), slots...)), state...)
	}
	each := len(carried) / rows
	slopes := make([]ttir.Value, rows)
	for r := range slopes {
		slopes[r] = scoring.slope(query, r)
	}
	carried = t.For(first, last, k.tile, stages, carried, func(i ttir.Value, carried []ttir.Value) []ttir.Value {
		tile := ttir.Add(i, t.Range(k.tile, 0, 2)) // [tile, 1]
		inside := ttir.Less(tile, last)
		block := ttir.Min(tile, t.Int(k.Blocks-1))
		slot := ttir.Add(block.MulInt(codes.BlockTokens), t.Range(codes.BlockTokens, 1, 2))
		token := ttir.Load(index, ttir.Add(slot, row.MulInt(k.Blocks*codes.BlockTokens)))
		seen := visible(token)
		words := value.load(t, block, head)
		scores := key.scores(t, queries, block, head)
		var next []ttir.Value
		for r := range rows {
			state := carried[r*each : (r+1)*each]
			score := ttir.Select(seen, scoring.of(scores[r], slopes[r], now, token), t.Float(maskedScore))
			score = ttir.Select(inside, score, t.Float(outsideScore))
			best := ttir.Max(state[0], score.Reshape(k.tile*codes.BlockTokens).Max(0))
			fade := ttir.Sub(state[0], best).Exp2()
			weight := ttir.Sub(score, best).Exp2()
			next = append(next, best, ttir.MulAdd(state[1], fade, weight))
			next = append(next, value.add(t, weight, words, fade, state[2:])...)
		}
		return next
	})
	// What a program writes is at (split, row and head, query).
	place := ttir.Add(split.MulInt(k.Batch*k.Heads*k.Queries), query)
	for r := range rows {
		state, at := carried[r*each:(r+1)*each], place.AddInt(r)
		ttir.Store(top, at, state[0].MulFloat(math.Ln2))
		ttir.Store(sum, at, ttir.Add(state[1].Reshape(k.tile*codes.BlockTokens).Sum(0), exact[r].sum))
		result := value.finish(state[2:])
		ttir.Store(out, ttir.Add(at.MulInt(k.width()), t.Range(k.width(), 0, 1)), result)
	}
	return t
}

// blockBase is where the arrays of a block and head begin, in units of what a head has of them:
// [tile, 1].
func (k Attention) blockBase(block, head ttir.Value) ttir.Value {
	return ttir.Add(block.MulInt(k.Batch*k.Heads), head)
}

// groupBase is blockBase for what belongs to a group of tokens.
func (s side) groupBase(block, head ttir.Value) ttir.Value {
	return s.k.blockBase(block.DivInt(s.Group/codes.BlockTokens), head)
}

// decode gives scales and zero points as float32 from where they lie; zero is an invalid Value
// where there is none.
func (s side) decode(t *ttir.Kernel, offset ttir.Value) (scale, zero ttir.Value) {
	scale = ttir.Load(s.scales, offset)
	if s.k.storage != numbers.Scale8 {
		scale = scale.ToFloat()
		if s.HasZeros() {
			return scale, ttir.Load(s.zeros, offset).ToFloat()
		}
		return scale, scale.MulFloat(-float32(s.Spec.Middle()))
	}
	scale = byteScale(t, scale)
	if s.HasZeros() {
		ratio := ttir.Load(s.zeros, offset).ToFloat().AddFloat(-numbers.ByteZeroOffset)
		return scale, ttir.Mul(ratio, scale.MulFloat(float32(numbers.ZeroUnit(s.Bits))))
	}
	return scale, scale.MulFloat(-float32(s.Spec.Middle()))
}

// byteScale is what scales in bytes stand for, as float32.
func byteScale(t *ttir.Kernel, stored ttir.Value) ttir.Value {
	code := stored.Wide()
	normal := code.AddInt(numbers.ByteScaleOffset).ShiftLeft(23 - numbers.ByteScaleMantissa).Bitcast(ttir.F32)
	return ttir.Select(ttir.Less(code, t.Int(1<<numbers.ByteScaleMantissa)), code.ToFloat().MulFloat(numbers.ByteScaleUnit), normal)
}
