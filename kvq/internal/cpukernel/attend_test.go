//go:build linux && cgo

package cpukernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/dtypes/bfloat16"
	"github.com/gomlx/compute/dtypes/float16"

	"github.com/kvqbook/kvqbook/internal/oracle"
	"github.com/kvqbook/kvqbook/internal/testlane"
	"github.com/kvqbook/kvqbook/kvq/internal/attend"
	"github.com/kvqbook/kvqbook/kvq/internal/codes"
	"github.com/kvqbook/kvqbook/kvq/internal/kernel"
	"github.com/kvqbook/kvqbook/kvq/internal/numbers"
)

// vectorNames are the kinds of vectors, by their numbers.
var vectorNames = []string{"portable", "AVX2", "AVX-512"}

// withVectors runs test with each kind of vectors that this processor has.
func withVectors(t *testing.T, test func(t *testing.T)) {
	defer useVectors(len(vectorNames))
	for i, name := range vectorNames {
		if useVectors(i) == i {
			t.Run(name, test)
		}
	}
}

// guarded is memory of so many bytes whose end is the end of what may be read.
func guarded(t testing.TB, bytes int) []byte {
	const page = 4096
	size := (bytes + page - 1) / page * page
	all, err := syscall.Mmap(-1, 0, size+page, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mprotect(all[size:], syscall.PROT_NONE); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Munmap(all) })
	return all[size-bytes : size : size]
}

// place copies numbers into guarded memory.
func place[T any](t testing.TB, list []T) unsafe.Pointer {
	var one T
	if len(list) == 0 {
		return nil
	}
	to := unsafe.Pointer(unsafe.SliceData(guarded(t, len(list)*int(unsafe.Sizeof(one)))))
	copy(unsafe.Slice((*T)(to), len(list)), list)
	return to
}

// floats are numbers as a dtype has them, and where they lie.
func floats(t testing.TB, d dtypes.DType, list []float64) ([]float64, unsafe.Pointer) {
	back := make([]float64, len(list))
	switch d {
	case dtypes.Float16:
		x := make([]float16.Float16, len(list))
		for i := range x {
			x[i] = float16.FromFloat32(float32(list[i]))
			back[i] = float64(x[i].Float32())
		}
		return back, place(t, x)
	case dtypes.BFloat16:
		x := make([]bfloat16.BFloat16, len(list))
		for i := range x {
			x[i] = bfloat16.FromFloat32(float32(list[i]))
			back[i] = float64(x[i].Float32())
		}
		return back, place(t, x)
	}
	x := make([]float32, len(list))
	for i := range x {
		x[i] = float32(list[i])
		back[i] = float64(x[i])
	}
	return back, place(t, x)
}

// layer is a layer's made-up contents: as the function reads them, and as numbers.
type layer struct {
	s      kernel.Shape
	m      memory
	call   direct
	rng    *rand.Rand
	q      oracle.Tensor // [B, H, 1, D]
	keys   oracle.Tensor // [B, K, T, D] of codes and exact tokens, and one more for the query
	values oracle.Tensor
	index  [][]int // [B][T]: token in each, -1: none
}

func uniform(rng *rand.Rand, n int, low, high float64) []float64 {
	list := make([]float64, n)
	for i := range list {
		list[i] = low + (high-low)*rng.Float64()
	}
	return list
}

// newLayer fills a layer: used are the slots of codes in use of each row, position that of its
// token.
func newLayer(t testing.TB, s kernel.Shape, seed uint64, used, position []int32) *layer {
	l := &layer{s: s, rng: rand.New(rand.NewPCG(seed, 3))}
	slots := s.Blocks * codes.BlockTokens
	all := slots + s.Exact + 1
	l.keys, l.values = oracle.NewTensor(s.Batch, s.Heads, all, s.Key.HeadDim), oracle.NewTensor(s.Batch, s.Heads, all, s.Value.HeadDim)
	l.q = oracle.NewTensor(s.Batch, s.Heads*s.Queries, 1, s.Key.HeadDim)
	l.q.Data, l.m.query = floats(t, s.QueryType, uniform(l.rng, len(l.q.Data), -1, 1))
	l.m.position, l.m.used = place(t, position), place(t, used)
	var codeIndex, exactIndex []int32
	l.index = make([][]int, s.Batch)
	for b := range s.Batch {
		for i := range slots { // some slots are empty
			token := int32(i)
			if token >= used[b] || l.rng.IntN(9) == 0 {
				token = -1
			}
			codeIndex, l.index[b] = append(codeIndex, token), append(l.index[b], int(token))
		}
		for i := range s.Exact { // some are of the future, some empty
			token := position[b] - int32(i) + 2
			if l.rng.IntN(6) == 0 {
				token = -1
			}
			exactIndex, l.index[b] = append(exactIndex, token), append(l.index[b], int(token))
		}
	}
	l.m.codeIndex, l.m.exactIndex = place(t, codeIndex), place(t, exactIndex)
	exact := func(to oracle.Tensor) unsafe.Pointer {
		d := to.Shape[3]
		list, at := floats(t, s.CacheType, uniform(l.rng, s.Batch*s.Heads*s.Exact*d, -1, 1))
		for i := 0; i < len(list); i += d {
			head, slot := i/d/s.Exact, i/d%s.Exact
			copy(to.Row(head/s.Heads, head%s.Heads, slots+slot), list[i:i+d])
		}
		return at
	}
	l.m.exactKeys, l.m.exactValues = exact(l.keys), exact(l.values)
	if len(s.Scores.Slopes) > 0 {
		_, l.m.slopes = floats(t, dtypes.Float32, s.Scores.Slopes)
	}
	l.m.keyCodes, l.m.keyScales, l.m.keyZeros, l.m.keyTokens = l.code(t, s.Key, l.keys)
	l.m.valueCodes, l.m.valueScales, l.m.valueZeros, _ = l.code(t, s.Value, l.values)
	l.m.out = place(t, make([]float32, s.Batch*s.Heads*s.Queries*s.Value.HeadDim))
	l.call = newDirect(s, l.m)
	t.Cleanup(l.call.free)
	return l
}

// code makes codes, scales, zero points and scales of tokens, and writes into to what they stand
// for.
func (l *layer) code(t testing.TB, f codes.Format, to oracle.Tensor) (words, scales, zeros, tokens unsafe.Pointer) {
	s, blocks := l.s, l.s.Blocks
	var scale, zero, token []float64
	var word func(i int) uint32
	for _, a := range f.Arrays(s.Batch, s.Heads, blocks*codes.BlockTokens, s.CacheType) {
		n := a.Shape.Size()
		switch a.Kind {
		case codes.KindCodes:
			list := make([]uint32, n)
			for i := range list {
				list[i] = l.rng.Uint32()
			}
			switch a.Shape.DType {
			case dtypes.Uint16:
				narrow := make([]uint16, n)
				for i := range list {
					narrow[i] = uint16(list[i])
				}
				word, words = func(i int) uint32 { return uint32(narrow[i]) }, place(t, narrow)
			case dtypes.Uint8:
				narrow := make([]uint8, n)
				for i := range list {
					narrow[i] = uint8(list[i])
				}
				word, words = func(i int) uint32 { return uint32(narrow[i]) }, place(t, narrow)
			default:
				word, words = func(i int) uint32 { return list[i] }, place(t, list)
			}
		case codes.KindTokens:
			list := l.bytes(n, 160)
			token, tokens = scalesOfBytes(list), place(t, list)
		case codes.KindScales:
			if a.Shape.DType == dtypes.Uint8 {
				list := l.bytes(n, 96)
				scale, scales = scalesOfBytes(list), place(t, list)
				break
			}
			scale, scales = floats(t, a.Shape.DType, uniform(l.rng, n, 0, 2/math.Exp2(float64(f.Bits))))
		case codes.KindZeros:
			if a.Shape.DType == dtypes.Uint8 {
				list := l.bytes(n, 256)
				zero, zeros = make([]float64, n), place(t, list)
				for i, b := range list {
					zero[i] = (float64(b) - 128) * math.Exp2(float64(min(0, f.Bits-6))) * scale[i]
				}
				break
			}
			zero, zeros = floats(t, a.Shape.DType, uniform(l.rng, n, -1.5, 0.5))
		}
	}
	layout, ofPart := f.Words(), f.WordsOfPart()
	rows, lanes := f.Matrix()
	h := numbers.Hadamard(f.HeadDim)
	for n := range blocks {
		for b := range s.Batch {
			for k := range s.Heads {
				head := (n*s.Batch+b)*s.Heads + k
				x := make([][]float64, codes.BlockTokens)
				for i := range x {
					x[i] = make([]float64, f.HeadDim)
				}
				for row := range rows {
					for lane := range lanes {
						part, r, code := row/layout.Rows, row%layout.Rows, uint32(0)
						for _, p := range f.Planes() {
							w := word(((head*layout.Parts+part)*ofPart+p.First+r/p.Fields)*lanes + lane)
							code |= w >> (r % p.Fields * p.Width) & (1<<p.Width - 1) << p.Low
						}
						slot, channel := row, lane
						if f.Keys {
							slot, channel = lane, row
						}
						at := (head*f.Groups()+channel/f.Group)*codes.BlockTokens + slot
						if f.PerChannel {
							at = ((n*codes.BlockTokens/f.Group*s.Batch+b)*s.Heads+k)*f.HeadDim + channel
						}
						least := -scale[at] * float64(int(1)<<(f.Bits-1))
						if zero != nil {
							least = zero[at]
						}
						x[slot][channel] = scale[at]*float64(code) + least
						if token != nil {
							x[slot][channel] *= token[head*codes.BlockTokens+slot]
						}
					}
				}
				for slot, values := range x {
					out := to.Row(b, k, n*codes.BlockTokens+slot)
					if !f.Rotate {
						copy(out, values)
						continue
					}
					for i := range out {
						for j, v := range values {
							out[i] += float64(h[i][j]) * v
						}
					}
				}
			}
		}
	}
	return words, scales, zeros, tokens
}

func (l *layer) bytes(n int, below uint32) []uint8 {
	list := make([]uint8, n)
	for i := range list {
		list[i] = uint8(l.rng.Uint32N(below))
	}
	return list
}

// scalesOfBytes are what bytes stand for: 4 bits of exponent with a bias of 9, and 4 of mantissa.
func scalesOfBytes(list []uint8) []float64 {
	out := make([]float64, len(list))
	for i, b := range list {
		out[i] = math.Ldexp(1+float64(b%16)/16, int(b/16)-9)
		if b < 16 {
			out[i] = math.Ldexp(float64(b), -12)
		}
	}
	return out
}

// run does the pieces in an order of their own, and merges: [B, H, dim of values].
func (l *layer) run(order []int) []float32 {
	for _, i := range order {
		l.call.piece(i)
	}
	l.call.merge()
	return append([]float32{}, unsafe.Slice((*float32)(l.m.out), l.s.Batch*l.s.Heads*l.s.Queries*l.s.Value.HeadDim)...)
}

// want is what the oracle gives.
func (l *layer) want(position []int32) []float64 {
	query := l.keys.Shape[2] - 1
	scores := oracle.Scores{Start: make([]int, l.s.Batch), Scale: l.s.Scores.Scale, SoftCap: l.s.Scores.SoftCap, Slopes: l.s.Scores.Slopes}
	scores.Place = func(row, slot int) int {
		if slot == query {
			return int(position[row])
		}
		return l.index[row][slot]
	}
	scores.Sees = func(row, _, _, key int) bool {
		if key == query {
			return false
		}
		token, now := l.index[row][key], int(position[row])
		return token >= 0 && token <= now && (l.s.SlidingWindow == 0 || token > now-l.s.SlidingWindow)
	}
	return scores.Attention(l.q, l.keys, l.values).Data
}

// require compares, within so much of the largest value of a head.
func require(t *testing.T, what string, got []float32, want []float64, dim int, tolerance float64) {
	t.Helper()
	for from := 0; from < len(want); from += dim {
		size := 0.0
		for _, w := range want[from : from+dim] {
			size = max(size, math.Abs(w))
		}
		for i := from; i < from+dim; i++ {
			if diff := math.Abs(float64(got[i]) - want[i]); !(diff <= tolerance*max(size, 1e-3)) {
				t.Fatalf("%s: element %d of head %d is %v, want %v", what, i%dim, i/dim, got[i], want[i])
			}
		}
	}
}

func upwards(n int) []int {
	list := make([]int, n)
	for i := range list {
		list[i] = i
	}
	return list
}

// randomShape makes a shape of everything that there is.
func randomShape(rng *rand.Rand) kernel.Shape {
	pick := func(list ...int) int { return list[rng.IntN(len(list))] }
	types := []dtypes.DType{dtypes.Float32, dtypes.Float16, dtypes.BFloat16}
	scales := []numbers.ScaleFormat{"", numbers.ScaleFloat32, numbers.ScaleFloat16, numbers.ScaleBFloat16, numbers.Scale8}
	s := kernel.Shape{
		Batch: 1 + rng.IntN(2), Heads: 1 + rng.IntN(3), Queries: pick(1, 2, 3, 4, 5, 7, 8), Blocks: 4 * (1 + rng.IntN(11)), Exact: pick(0, 1, 9, 40, 600),
		CacheType: types[rng.IntN(3)], QueryType: types[rng.IntN(3)],
	}
	if s.Exact == 600 || s.Blocks > 20 {
		s.Batch, s.Heads = 1, 1
	}
	format := func(keys bool, dim int) codes.Format {
		for {
			q := numbers.MinMax
			if rng.IntN(3) == 0 {
				q = numbers.Symmetric
			}
			spec := numbers.Spec{Quantizer: q, Bits: codes.AllBits()[rng.IntN(len(codes.AllBits()))], Scales: scales[rng.IntN(len(scales))], Keys: keys}
			var dividers []int
			for g := 8; g <= dim; g++ {
				if dim%g == 0 {
					dividers = append(dividers, g)
				}
			}
			perChannel, group := rng.IntN(2) == 0, dividers[rng.IntN(len(dividers))]
			if perChannel {
				group = pick(32, 64, 128)
			}
			f := codes.New(spec, dim, group, perChannel, rng.IntN(2) == 0)
			f.TokenScales = keys && perChannel && rng.IntN(2) == 0
			if f.Words().Whole {
				return f
			}
		}
	}
	dims := []int{32, 64, 64, 128, 80, 96, 100, 36, 112, 256}
	dim := pick(dims...)
	s.Key, s.Value = format(true, dim), format(false, dim)
	if rng.IntN(4) == 0 {
		s.Value = format(false, pick(dims...))
	}
	s.Scores = attend.Scores{Scale: 2 / math.Sqrt(float64(dim))}
	if rng.IntN(4) == 0 {
		s.Scores.SoftCap = 3
	}
	if rng.IntN(4) == 0 {
		for range s.Heads * s.Queries {
			s.Scores.Slopes = append(s.Scores.Slopes, float64(float32(rng.Float64()/16)))
		}
	}
	if rng.IntN(3) == 0 {
		s.SlidingWindow = 1 + rng.IntN(s.Blocks*codes.BlockTokens)
	}
	return s
}

func describe(s kernel.Shape) string {
	side := func(f codes.Format) string {
		return fmt.Sprintf("%d bits of %d by %d, per channel %v, rotated %v, tokens %v, %s %s, words %+v", f.Bits, f.HeadDim, f.Group, f.PerChannel, f.Rotate, f.TokenScales, f.Spec.Quantizer.Name, f.Spec.Scales, f.Words())
	}
	return strings.Join([]string{
		fmt.Sprintf("%dx%dx%d, %d blocks, %d exact, window %d, %+v, %s of %s", s.Batch, s.Heads, s.Queries, s.Blocks, s.Exact, s.SlidingWindow, s.Scores, s.QueryType, s.CacheType),
		side(s.Key), side(s.Value)}, "\n")
}

// Shapes at random are what the oracle says, with each kind of vectors; no byte behind an array is
// read, and the order of pieces does not matter.
func TestAttendIsTheOracles(t *testing.T) {
	for _, c := range []struct{ from, to uint64 }{{0, 6}, {6, 60}, {60, 400}} {
		t.Run(fmt.Sprintf("seeds from %d", c.from), func(t *testing.T) {
			if c.from > 0 {
				testlane.Slow(t, "six shapes stand for all")
			}
			if c.to > 60 {
				testlane.OnlyAll(t, "60 shapes stand for all")
			}
			for seed := c.from; seed < c.to && !t.Failed(); seed++ {
				testShape(t, seed)
			}
		})
	}
}

func testShape(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 5))
	s := randomShape(rng)
	var used, position []int32
	for range s.Batch {
		u := rng.Int32N(int32(s.Blocks*codes.BlockTokens) + 1)
		if rng.IntN(8) == 0 {
			u = 0
		}
		p := u + rng.Int32N(40) - 4
		if rng.IntN(10) == 0 {
			p = -1
		}
		used, position = append(used, u), append(position, p)
	}
	l := newLayer(t, s, seed, used, position)
	want := l.want(position)
	pieces := upwards(l.call.pieces)
	name := fmt.Sprintf("seed %d, used %v, position %v\n%s\n", seed, used, position, describe(s))
	withVectors(t, func(t *testing.T) {
		got := l.run(pieces)
		require(t, name, got, want, s.Value.HeadDim, 2e-5)
		order := slices.Clone(pieces)
		rng.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		if again := l.run(order); !slices.Equal(again, got) {
			t.Fatalf("%s: in another order of pieces other bits", name)
		}
	})
}
