//go:build linux && cgo

package cpukernel

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/dtypes/float16"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/testbackend"
	"github.com/kvqbook/kvqbook/internal/testlane"
	"github.com/kvqbook/kvqbook/kvq/internal/codes"
	"github.com/kvqbook/kvqbook/kvq/internal/numbers"
)

// encodeCase is keys or values [2, 3, tokens + 3, D] of which tokens become codes, from other ones
// on in each row.
type encodeCase struct {
	name   string
	format codes.Format
	tokens int
	dtype  dtypes.DType
	masked bool // some tokens do not count
	odd    bool // some numbers are not finite, one token is next to nothing and one channel constant
	fed    bool
}

const encodeRows, encodeHeads, encodeMore = 2, 3, 3

func encodeCases() []encodeCase {
	format := func(keys bool, bits, dim, group int, perChannel bool, scales numbers.ScaleFormat, tokenScales bool) codes.Format {
		f := codes.New(numbers.Spec{Quantizer: numbers.Unbiased, Bits: bits, Scales: scales, Keys: keys}, dim, group, perChannel, true)
		f.TokenScales = tokenScales
		return f
	}
	plain := func(f codes.Format) codes.Format { f.Rotate = false; return f }
	lowest := format(true, 2, 64, 32, true, numbers.Scale8, true)
	smallest := format(true, 3, 64, 64, true, numbers.Scale8, true)
	values := func(bits, dim, group int, scales numbers.ScaleFormat) codes.Format {
		return format(false, bits, dim, group, false, scales, false)
	}
	return []encodeCase{
		{"lowest keys", lowest, 96, dtypes.Float32, false, false, true},
		{"lowest keys, odd", lowest, 96, dtypes.Float32, true, true, true},
		{"lowest keys, not fed", lowest, 64, dtypes.Float32, true, true, false},
		{"smallest keys", smallest, 128, dtypes.Float32, true, false, true},
		{"smallest keys, 128 channels, float16", format(true, 3, 128, 64, true, numbers.Scale8, true), 64, dtypes.Float16, false, false, true},
		{"balanced keys", format(true, 5, 64, 64, true, numbers.ScaleFloat16, false), 128, dtypes.Float32, true, true, false},
		{"quality keys, bfloat16", format(true, 6, 80, 64, true, "", false), 64, dtypes.BFloat16, true, false, false},
		{"keys of 4 bits, no scales of tokens", format(true, 4, 32, 32, true, numbers.ScaleBFloat16, false), 64, dtypes.Float32, true, true, true},
		{"keys of 1 bit, 36 channels", plain(format(true, 1, 36, 32, true, numbers.Scale8, true)), 32, dtypes.Float32, false, true, true},
		{"keys by groups of channels", format(true, 4, 64, 32, false, numbers.ScaleFloat16, false), 64, dtypes.Float32, true, true, true},
		{"keys of 8 bits", format(true, 8, 64, 32, true, "", false), 32, dtypes.Float32, false, true, false},
		{"lowest values", values(2, 64, 64, numbers.Scale8), 96, dtypes.Float32, true, false, false},
		{"lowest values, fed", values(2, 64, 64, numbers.Scale8), 32, dtypes.Float32, true, true, true},
		{"smallest values", values(3, 128, 64, numbers.Scale8), 64, dtypes.Float32, true, true, false},
		{"balanced values", values(4, 64, 64, numbers.ScaleFloat16), 64, dtypes.Float32, true, true, false},
		{"values of 6 bits, 80 channels", values(6, 80, 40, numbers.ScaleFloat32), 32, dtypes.BFloat16, true, true, false},
		{"values by tokens", format(false, 2, 32, 64, true, numbers.ScaleFloat16, false), 64, dtypes.Float32, true, true, true},
	}
}

// inputs are the numbers, where rows begin, which tokens count and a factor.
func (c encodeCase) inputs() (x *tensors.Tensor, from []int32, valid []bool, factor *tensors.Tensor) {
	rng, dim, all := rand.New(rand.NewPCG(7, uint64(c.format.Bits))), c.format.HeadDim, c.tokens+encodeMore
	flat := make([]float32, encodeRows*encodeHeads*all*dim)
	for i := range flat {
		v, token := float32(rng.NormFloat64()), i/dim%all
		if i%dim == 3 {
			v = 8*v + 20
		}
		if rng.IntN(400) == 0 {
			v *= 30
		}
		if c.odd {
			switch {
			case i%dim == 5:
				v = 0.75
			case token == 6:
				v *= 3e-5
			case token == 9 && i%dim == 7:
				v = float32(math.NaN())
			case token == 11 && i%dim == 8:
				v = float32(math.Inf(1 - 2*rng.IntN(2)))
			}
		}
		flat[i] = v
	}
	for i := range encodeRows * c.tokens {
		valid = append(valid, !c.masked || i%c.tokens < c.tokens-13)
	}
	triangle := make([]float32, encodeRows*encodeHeads*dim*dim)
	for i := range triangle { // that of the last head is 0
		if row, column := i/dim%dim, i%dim; column < row && i < len(triangle)-dim*dim {
			triangle[i] = float32(0.15 * rng.NormFloat64())
		}
	}
	return tensors.FromFlatDataAndDimensions(flat, encodeRows, encodeHeads, all, dim), []int32{1, 5},
		valid, tensors.FromFlatDataAndDimensions(triangle, encodeRows, encodeHeads, dim, dim)
}

// run makes the arrays by the function in a graph, or by graph operations.
func (c encodeCase) run(t *testing.T, byFunction bool) (arrays []*tensors.Tensor) {
	t.Helper()
	x, from, valid, factor := c.inputs()
	exec := MustNewExec(testbackend.XLA(t), func(x, first, valid, factor *Node) []*Node {
		x = ConvertDType(x, c.dtype)
		if !c.masked {
			valid = nil
		}
		if !c.fed {
			factor = nil
		}
		if byFunction {
			blocks, ok := Encode(c.format, x, first, c.tokens, valid, factor)
			if !ok {
				t.Fatal("the function does not run here")
			}
			return blocks.Nodes()
		}
		at := Add(Iota(x.Graph(), shapes.Make(dtypes.Int32, encodeRows, c.tokens), 1), gx.BroadcastToDims(Reshape(first, encodeRows, 1), encodeRows, c.tokens))
		x = gx.TakeAt(Transpose(x, 1, 2), gx.MinScalar(at, c.tokens+encodeMore-1))
		return c.format.EncodeFed(Transpose(x, 1, 2), valid, factor).Nodes()
	})
	defer exec.Finalize()
	return exec.MustCall(x, from, tensors.FromFlatDataAndDimensions(valid, encodeRows, c.tokens), factor)
}

// sameBytes is the part of the bytes that two arrays have in common.
func sameBytes(x, y []byte) float64 {
	n := 0
	for i := range x {
		if x[i] == y[i] {
			n++
		}
	}
	return float64(n) / float64(len(x))
}

// same is the part of two arrays that they have in common: of their bytes, or of float32 up to some
// last bits.
func same(t *testing.T, a, b *tensors.Tensor) float64 {
	if a.DType() == dtypes.Float32 {
		n := 0
		x, y := tensors.MustCopyFlatData[float32](a), tensors.MustCopyFlatData[float32](b)
		for i := range x {
			if math.Abs(float64(x[i]-y[i])) <= 1e-5*math.Abs(float64(y[i]))+1e-5 {
				n++
			}
		}
		return float64(n) / float64(len(x))
	}
	return sameBytes(bytesOf(t, a), bytesOf(t, b))
}

func bytesOf(t *testing.T, x *tensors.Tensor) (list []byte) {
	t.Helper()
	if err := x.ConstBytes(func(data []byte) { list = slices.Clone(data) }); err != nil {
		t.Fatal(err)
	}
	return list
}

// By hand: channel c of token t is (t + c) mod 4 + c + 4, which a range of 2 bits has exactly, with
// scale 1 and zero point c + 4. A token's codes are one word, channel 0 in the lowest bits. The
// token that does not count is far off, and has codes 0.
func TestEncodeByHand(t *testing.T) {
	f := codes.New(numbers.Spec{Quantizer: numbers.Unbiased, Bits: 2, Scales: numbers.ScaleFloat16, Keys: true}, 16, 32, true, false)
	of := encoding{format: f, rows: 1, heads: 1, tokens: 32, all: 33, valid: true}
	x, valid := make([]float32, 33*16), make([]uint8, 32)
	for i := range x {
		x[i] = float32(((i/16-1)+i%16)%4 + i%16 + 4)
	}
	for i := range valid {
		valid[i] = 1
	}
	valid[5] = 0
	x[6*16+2] = 1e6
	withVectors(t, func(t *testing.T) {
		c := newDirectCase(t, of, x, []int32{1}, valid, nil)
		c.run(upwards(c.call.pieces))
		for token, got := range listAt[uint32](c.out[0], 32) {
			want := uint32(0)
			for channel := range 16 {
				want |= uint32((token+channel)%4) << (2 * channel)
			}
			if token == 5 {
				want = 0
			}
			if got != want {
				t.Errorf("token %d: %032b, want %032b", token, got, want)
			}
		}
		scales, zeros := listAt[uint16](c.out[1], 16), listAt[uint16](c.out[2], 16)
		for channel := range 16 {
			want := float16.FromFloat32(float32(channel + 4))
			if scales[channel] != 0x3c00 || float16.Float16(zeros[channel]) != want {
				t.Errorf("channel %d: scale %x and zero point %x, want 3c00 and %x", channel, scales[channel], zeros[channel], want)
			}
		}
	})
}

// The function makes what graph operations make: a sum's last bits depend on the order of its
// terms, and with them now and then a code or a scale that lies between two, and with feedback
// those behind it.
func TestEncodeIsTheGraphs(t *testing.T) {
	for i, c := range encodeCases() {
		t.Run(c.name, func(t *testing.T) {
			if i > 0 {
				testlane.Slow(t, "keys of lowest stand for all")
			}
			want := c.run(t, false)
			withVectors(t, func(t *testing.T) {
				for i, got := range c.run(t, true) {
					least := 0.99
					if i == 0 && c.fed {
						least = 0.9
					}
					kind := c.format.Arrays(1, 1, c.tokens, c.dtype)[i].Kind
					share := same(t, got, want[i])
					if share < least {
						t.Errorf("%s: %.4f of the bytes are the same", kind, share)
					}
				}
			})
		})
	}
}

// Shapes at random: no byte behind an array is read or written, the order of pieces does not
// matter, and vectors make what plain C makes.
func TestEncodeShapes(t *testing.T) {
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 9))
		of := randomEncoding(rng)
		name := fmt.Sprintf("seed %d: %+v", seed, of)
		x := make([]float32, of.rows*of.heads*of.all*of.format.HeadDim)
		for i := range x {
			if x[i] = float32(rng.NormFloat64()); rng.IntN(500) == 0 {
				x[i] = []float32{float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1)), math.MaxFloat32, 0}[rng.IntN(5)]
			}
		}
		var first []int32
		var valid []uint8
		var factor []float32
		for range of.rows {
			first = append(first, rng.Int32N(int32(of.all)))
		}
		for range of.rows * of.tokens * int(flag(of.valid)) {
			valid = append(valid, uint8(min(1, rng.IntN(9))))
		}
		for range of.rows * of.heads * of.format.HeadDim * of.format.HeadDim * int(flag(of.factor)) {
			factor = append(factor, float32(0.1*rng.NormFloat64()))
		}
		var plain [][]byte
		withVectors(t, func(t *testing.T) {
			c := newDirectCase(t, of, x, first, valid, factor)
			order := upwards(c.call.pieces)
			got := c.run(order)
			if plain == nil {
				plain = got
			}
			least := 0.98
			if of.factor {
				least = 0.7
			}
			if share := sameBytes(got[0], plain[0]); share < least {
				t.Errorf("%s: %.4f of the codes' bytes are those of plain C", name, share)
			}
			rng.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
			for i, again := range c.run(order) {
				if !bytes.Equal(again, got[i]) {
					t.Errorf("%s: in another order of pieces other bytes of array %d", name, i)
				}
			}
		})
	}
}

// randomEncoding is of everything that there is.
func randomEncoding(rng *rand.Rand) encoding {
	pick := func(list ...int) int { return list[rng.IntN(len(list))] }
	scales := []numbers.ScaleFormat{numbers.ScaleFloat32, numbers.ScaleFloat16, numbers.ScaleBFloat16, numbers.Scale8}
	for {
		keys, perChannel, dim := rng.IntN(2) == 0, rng.IntN(2) == 0, pick(16, 32, 36, 64, 80, 100, 128)
		spec := numbers.Spec{Quantizer: numbers.Unbiased, Bits: codes.AllBits()[rng.IntN(len(codes.AllBits()))], Scales: scales[rng.IntN(len(scales))], Keys: keys}
		group := pick(dim, dim/2, dim/4)
		if perChannel {
			group = pick(32, 64, 96)
		}
		f := codes.New(spec, dim, group, perChannel, rng.IntN(2) == 0)
		f.TokenScales = keys && perChannel && rng.IntN(2) == 0
		if !encodes(f) {
			continue
		}
		tokens := max(group, codes.BlockTokens)
		if !perChannel {
			tokens = codes.BlockTokens
		}
		tokens *= 1 + rng.IntN(3)
		return encoding{
			format: f, rows: 1 + rng.IntN(2), heads: 1 + rng.IntN(2), tokens: tokens, all: max(1, tokens+rng.IntN(40)-20),
			valid: rng.IntN(2) == 0, factor: rng.IntN(2) == 0,
		}
	}
}

// run does the pieces in an order of their own and returns the bytes of the arrays.
func (c directCase) run(order []int) (arrays [][]byte) {
	for i, at := range c.out {
		clear(unsafe.Slice((*byte)(at), c.bytes[i]))
	}
	for _, i := range order {
		c.call.piece(i, c.scratch)
	}
	for i, at := range c.out {
		arrays = append(arrays, slices.Clone(unsafe.Slice((*byte)(at), c.bytes[i])))
	}
	return arrays
}

// Calls at the same time, whose pieces threads share, give what one thread gives.
func TestEncodeCallsAtTheSameTime(t *testing.T) {
	c := encodeCases()[0]
	c.tokens = 384
	x, from, _, factor := c.inputs()
	exec := MustNewExec(testbackend.XLA(t), func(x, first, factor *Node) []*Node {
		blocks, ok := Encode(c.format, x, first, c.tokens, nil, factor)
		if !ok {
			t.Fatal("the function does not run here")
		}
		return blocks.Nodes()
	})
	defer exec.Finalize()
	of := encoding{format: c.format, rows: encodeRows, heads: encodeHeads, tokens: c.tokens, all: c.tokens + encodeMore, factor: true}
	dim, turned := c.format.HeadDim, tensors.MustCopyFlatData[float32](factor)
	for head := range encodeRows * encodeHeads {
		own := turned[head*dim*dim:]
		for i := range dim {
			for j := range i {
				own[i*dim+j], own[j*dim+i] = own[j*dim+i], own[i*dim+j]
			}
		}
	}
	alone := newDirectCase(t, of, tensors.MustCopyFlatData[float32](x), from, nil, turned)
	want := alone.run(upwards(alone.call.pieces))
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 20 {
				for i, got := range exec.MustCall(x, from, factor) {
					if !bytes.Equal(bytesOf(t, got), want[i]) {
						t.Errorf("array %d: other bytes than one thread makes", i)
						return
					}
				}
			}
		})
	}
	all.Wait()
}

// What the function does not code is left to graph operations.
func TestEncodeTakes(t *testing.T) {
	unbiased := numbers.Spec{Quantizer: numbers.Unbiased, Bits: 2, Keys: true}
	minMax := unbiased
	minMax.Quantizer = numbers.MinMax
	for name, c := range map[string]struct {
		format codes.Format
		want   bool
	}{
		"unbiased":            {codes.New(unbiased, 64, 32, true, false), true},
		"minimum and maximum": {codes.New(minMax, 64, 32, true, false), false},
		"a large head":        {codes.New(unbiased, 1024, 32, true, false), false},
		"groups of 16 tokens": {codes.New(unbiased, 64, 16, true, false), false},
	} {
		if encodes(c.format) != c.want {
			t.Errorf("%s: %v, want %v", name, !c.want, c.want)
		}
	}
	exec := MustNewExec(testbackend.XLA(t), func(x *Node) *Node {
		return gx.HostCall(encodeTarget, []*Node{Const(x.Graph(), make([]int32, 26)), x}, x.Shape())[0]
	})
	defer exec.Finalize()
	if _, err := exec.Call([]float32{1}); err == nil || !strings.Contains(err.Error(), "kvq_encode: want 3 inputs and 2 results, got 2 and 1") {
		t.Errorf("%v, want an error that counts the inputs", err)
	}
}
