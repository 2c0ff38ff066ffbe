package kvq

import (
	"fmt"
	"math"

	"github.com/gomlx/compute/dtypes"
	"github.com/kvqbook/kvqbook/internal/ttir"
	"github.com/kvqbook/kvqbook/kvq/internal/codes"
	"github.com/kvqbook/kvqbook/kvq/internal/numbers"
)

// The kernel is attention of single tokens over codes in one pass on a GPU, in Triton's language: flash decoding (Dao et al. 2023). A program is one warp; it
// walks its share of the blocks that are in use with a running maximum, and writes what a [partial] holds. Other programs of the same grid attend to sinks and
// window (kernelexact.go). A second kernel joins the parts. attendBlocks is the same as graph operations, and what the kernel has to equal; what has no kernel
// goes there.
//
// Codes are never converted. A code is masked out of its word where it lies, at bit k, and the word's bits are taken for a float32: below 2^24 these are the
// numbers code·2^(k-149), most of them subnormal, which a GPU multiplies as fast as others. What multiplies the code (query or weight) carries the
// 2^(lift-k), and the sum is brought back by 2^(149-lift). So a code costs two instructions: an AND and a multiply-add.

const (
	kernelLift  = 64 // exponent that queries and weights are lifted by
	kernelHigh  = 24 // fields from this bit on are shifted down, by kernelShift: from here on a float's bits are its exponent
	kernelShift = 8
	unlift      = 149 - kernelLift
)

// In the kernel scores count log2(e) times, so that exponentials are powers of two.
const (
	kernelMasked = masked / math.Ln2
	beyond       = 2 * kernelMasked // of a slot that is no program's or another's: below what is merely masked
)

// kernelShape is what a kernel is made for.
type kernelShape struct {
	key, value            codes.Format
	batch, heads, queries int // rows, key/value heads, queries of each
	dim, blocks           int
	storage               numbers.ScaleFormat // of scales, resolved
	sliding               int
	splits, tile, warps   int // programs that share a head's blocks, blocks that one reads in a turn, its warps
	exact                 int // slots of sinks and window
	exactType             dtypes.DType
	together              int          // of a head's queries, what a program takes
	queryType             dtypes.DType // of queries as they come in
}

// scoreScale is what scores are multiplied by.
func (k kernelShape) scoreScale() float64 { return 1 / math.Sqrt(float64(k.dim)) }

// programs is how many programs share a head of a row: those for codes, then those for exact tokens.
func (k kernelShape) programs() int      { return k.splits + k.exactPrograms() }
func (k kernelShape) exactPrograms() int { return (k.exact + exactTile - 1) / exactTile }

// exactTile is the sinks' and window's slots that a program reads.
const exactTile = 16

// kernelFor tells the shape of the kernel for a layer, and whether there is one: otherwise graph operations do it.
//
// queries of a key/value head; dtype: of theirs.
func (p *Plan) kernelFor(l layerPlan, queries int, dtype dtypes.DType) (kernelShape, bool) {
	s := p.shape
	k := kernelShape{key: l.key, value: l.value, batch: s.Batch, heads: s.KVHeads, queries: queries, dim: s.HeadDim, blocks: p.codeSlots / codes.BlockTokens,
		storage: l.key.Spec.Scales.Storage(s.DType), sliding: s.SlidingWindow, tile: 1, warps: 1,
		exact: p.exactSlots(), exactType: s.DType, queryType: dtype}
	powerOf2 := func(n int) bool { return n > 0 && n&(n-1) == 0 }
	// What takes codes out of words serves several queries; more of them do not fit a thread's registers.
	for n := 1; n <= queries; n++ {
		if queries%n == 0 && n*s.HeadDim <= 256 {
			k.together = n
		}
	}
	ok := powerOf2(s.HeadDim) && s.HeadDim >= mergeChannels && s.HeadDim <= 256 && (dtype == dtypes.Float32 || dtype == dtypes.Float16 || dtype == dtypes.BFloat16)
	for _, f := range []codes.Format{l.key, l.value} {
		for _, a := range f.Arrays(s.Batch, s.KVHeads, p.codeSlots, s.DType) {
			ok = ok && a.Shape.Size() <= math.MaxInt32 // the kernel counts in int32
		}
		w := f.Words()
		ok = ok && f.Packed && w.Bits == 32 && w.Whole && (f.PerChannel || powerOf2(f.Group))
	}
	k.splits = k.sharers()
	return k, ok
}

// sharers is how many programs share a head's blocks. Those that read codes come first in the grid and all take about as long, so their number has to fill
// the GPU a whole number of times: with 1,024 heads an H200 reads 2.8 TB/s with one program a head and 3.7 with three, which are two times as many as it
// runs at once. It is filled the fewest times that leave at most a tenth of it idle, for every program costs a start and a part to join; where no number
// does that, as well as can be. Programs for exact tokens come last and fill what is left.
func (k kernelShape) sharers() int {
	heads, atOnce := k.batch*k.heads*k.queries/k.together, k.resident()*gpuProcessors
	best, busiest, times := 1, 0.0, 0
	for n := 1; n <= max(1, k.blocks/k.tile); n++ {
		rounds := (n*heads + atOnce - 1) / atOnce
		if busiest >= 0.9 && rounds > times {
			break
		}
		if busy := float64(n*heads) / float64(rounds*atOnce); busy > busiest {
			best, busiest, times = n, busy, rounds
		}
	}
	return best
}

// kernelStages is how many turns are under way at once: what the next two read is on its way while one computes. A warp waits for memory three times a turn
// otherwise, and a processor has too few warps to fill the time with: 32 rows of 4,096 tokens took an H200
// 0.27 ms with one turn, 0.25 with two and 0.22 with three (docs/bench/cuda/12-attention-llama2.md, some 4,096 to 6,144 programs).
const kernelStages = 3

// gpuProcessors is how many an H100 or H200 has.
const gpuProcessors = 132

// resident is how many programs a processor of the GPU runs at once, which their registers decide, of which it has 65,536: 168 a thread, which most
// kernels take, make 12, and 255 make 8.
func (k kernelShape) resident() int {
	if k.together*k.dim > 128 {
		return 8
	}
	return 12
}

// name tells kernels apart in a profile.
func (k kernelShape) name() string {
	return fmt.Sprintf("attend_%d_%d_codes", k.key.Bits, k.value.Bits)
}

// kernelSide is what one side reads.
type kernelSide struct {
	codes.Format
	k                    kernelShape
	codes, scales, zeros ttir.Value
}

func (k kernelShape) side(t *ttir.Kernel, s codes.Format) kernelSide {
	ks := kernelSide{Format: s, k: k, codes: t.Pointer(ttir.I32), scales: t.Pointer(k.scaleElem())}
	if s.HasZeros() {
		ks.zeros = t.Pointer(k.scaleElem())
	}
	return ks
}

func (k kernelShape) scaleElem() ttir.Elem { return elemOf(k.storage.DType(dtypes.InvalidDType)) }

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

// build writes the kernel. Its grid is (B·K·Q / together) x programs. Parameters, in order:
//
//	q [B, K, Q, D]; the same turned and multiplied by scoreScale, float32, where keys are turned
//	position [B] int32, the index of the token under way; used [B], codeIndex [B, C] int32
//	codes, scales, zeros of keys, then of values (see coded; no zeros where codes are symmetric)
//	exactIndex [B, E], exact keys and values [B, K, E, D]
//	max, sum [programs, B, K, Q] float32, out [programs, B, K, Q, D] float32: outputs of turned values are turned, those of exact ones not
func (k kernelShape) build() *ttir.Kernel {
	t := ttir.New(k.name())
	q := t.Pointer(elemOf(k.queryType))
	turned := q
	if k.key.Rotate {
		turned = t.Pointer(ttir.F32)
	}
	position, used, index := t.Pointer(ttir.I32), t.Pointer(ttir.I32), t.Pointer(ttir.I32)
	key, value := k.side(t, k.key), k.side(t, k.value)
	window := exactSide{k, q, t.Pointer(ttir.I32), t.Pointer(elemOf(k.exactType)), t.Pointer(elemOf(k.exactType))}
	top, sum, out := t.Pointer(ttir.F32), t.Pointer(ttir.F32), t.Pointer(ttir.F32)

	part, split := t.ProgramID(0), t.ProgramID(1)
	head, query := part.DivInt(k.queries/k.together), part.MulInt(k.together)
	row := head.DivInt(k.heads)
	blocks := ttir.Load(used, row).AddInt(codes.BlockTokens - 1).DivInt(codes.BlockTokens)
	share := blocks.AddInt(k.splits*k.tile - 1).DivInt(k.splits * k.tile).MulInt(k.tile)
	first := ttir.Mul(split, share)
	last := ttir.Min(ttir.Add(first, share), blocks)
	now := ttir.Load(position, row)
	visible := func(token ttir.Value) ttir.Value {
		seen := ttir.BitAnd(ttir.Less(t.Int(-1), token), ttir.LessOrEqual(token, now))
		if k.sliding > 0 {
			seen = ttir.BitAnd(seen, ttir.Less(now.AddInt(-k.sliding), token))
		}
		return seen
	}
	exact := window.attend(t, split, head, query, row, visible)

	queries := key.queries(t, turned, query)
	rows := k.together
	// Carried: for each query the largest score, the weights' sums and sums of zero points by slot, and the output.
	var carried []ttir.Value
	slots := []int{k.tile, codes.BlockTokens}
	for r := range rows {
		state := value.initial(t)
		out := &state[len(state)-1]
		*out = exact[r].out.Reshape(out.Shape...)
		carried = append(append(carried, exact[r].best, t.Fill(t.Float(0), slots...)), state...)
	}
	each := len(carried) / rows
	carried = t.For(first, last, k.tile, kernelStages, carried, func(i ttir.Value, carried []ttir.Value) []ttir.Value {
		tile := ttir.Add(i, t.Range(k.tile, 0, 2)) // [tile, 1]
		ours := ttir.Less(tile, last)
		block := ttir.Min(tile, t.Int(k.blocks-1))
		slot := ttir.Add(block.MulInt(codes.BlockTokens), t.Range(codes.BlockTokens, 1, 2))
		token := ttir.Load(index, ttir.Add(slot, row.MulInt(k.blocks*codes.BlockTokens)))
		seen := visible(token)
		words := value.load(t, block, head)
		scores := key.scores(t, queries, block, head)
		var next []ttir.Value
		for r := range rows {
			state := carried[r*each : (r+1)*each]
			score := ttir.Select(seen, scores[r], t.Float(kernelMasked))
			score = ttir.Select(ours, score, t.Float(beyond))
			best := ttir.Max(state[0], score.Reshape(k.tile*codes.BlockTokens).Max(0))
			fade := ttir.Sub(state[0], best).Exp2()
			weight := ttir.Sub(score, best).Exp2()
			next = append(next, best, ttir.MulAdd(state[1], fade, weight))
			next = append(next, value.weigh(t, weight, words, fade, state[2:])...)
		}
		return next
	})
	// What a program writes is at (split, row and head, query).
	place := ttir.Add(split.MulInt(k.batch*k.heads*k.queries), query)
	for r := range rows {
		state, at := carried[r*each:(r+1)*each], place.AddInt(r)
		ttir.Store(top, at, state[0].MulFloat(math.Ln2))
		ttir.Store(sum, at, ttir.Add(state[1].Reshape(k.tile*codes.BlockTokens).Sum(0), exact[r].sum))
		result := value.finish(state[2:])
		ttir.Store(out, ttir.Add(at.MulInt(k.dim), t.Range(k.dim, 0, 1)), result)
	}
	return t
}

// fieldPlace is where field f of a word of fields of so many bits begins, once its word is shifted down where it has to be.
func fieldPlace(f, width int) (at int, shifted bool) {
	if at = f * width; at >= kernelHigh {
		return at - kernelShift, true
	}
	return at, false
}

// field takes field f out of words, as subnormal numbers; high are the words shifted down.
func field(words, high ttir.Value, f, width int) ttir.Value {
	at, shifted := fieldPlace(f, width)
	if shifted {
		words = high
	}
	return words.AndInt((1<<width - 1) << at).Bitcast(ttir.F32)
}

// blockBase is where the arrays of a block and head begin, in units of what a head has of them: [tile, 1].
func (k kernelShape) blockBase(block, head ttir.Value) ttir.Value {
	return ttir.Add(block.MulInt(k.batch*k.heads), head)
}

// groupBase is blockBase for what belongs to a group of tokens.
func (s kernelSide) groupBase(block, head ttir.Value) ttir.Value {
	return s.k.blockBase(block.DivInt(s.Group/codes.BlockTokens), head)
}

// decode gives scales and zero points as float32 from where they lie; zero is an invalid Value where there is none.
func (s kernelSide) decode(t *ttir.Kernel, offset ttir.Value) (scale, zero ttir.Value) {
	scale = ttir.Load(s.scales, offset)
	if s.k.storage != numbers.Scale8 {
		scale = scale.ToFloat()
		if s.HasZeros() {
			return scale, ttir.Load(s.zeros, offset).ToFloat()
		}
		return scale, scale.MulFloat(-float32(s.Spec.Middle()))
	}
	code := scale.Wide()
	normal := code.AddInt(numbers.ByteScaleOffset).ShiftLeft(23 - numbers.ByteScaleMantissa).Bitcast(ttir.F32)
	scale = ttir.Select(ttir.Less(code, t.Int(1<<numbers.ByteScaleMantissa)), code.ToFloat().MulFloat(numbers.ByteScaleUnit), normal)
	if s.HasZeros() {
		ratio := ttir.Load(s.zeros, offset).ToFloat().AddFloat(-numbers.ByteZeroOffset)
		return scale, ttir.Mul(ratio, scale.MulFloat(float32(numbers.ZeroUnit(s.Bits))))
	}
	return scale, scale.MulFloat(-float32(s.Spec.Middle()))
}

// lift is what rows of a block have to be multiplied by, by their numbers: 2^(lift + low - at) for a code that begins at bit at of its word.
func lift(t *ttir.Kernel, p codes.Plane, row ttir.Value) ttir.Value {
	at := row.RemInt(p.Fields).MulInt(p.Width)
	at = ttir.Sub(at, at.DivInt(kernelHigh).MulInt(kernelShift))
	return ttir.Sub(t.Int(127+kernelLift+p.Low), at).ShiftLeft(23).Bitcast(ttir.F32)
}
