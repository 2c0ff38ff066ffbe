//go:build linux && cgo

package cpukernel

import (
	"fmt"
	"math"
	"testing"
	"unsafe"

	"github.com/gomlx/compute/dtypes"

	"github.com/kvqbook/kvqbook/kvq/internal/attend"
	"github.com/kvqbook/kvqbook/kvq/internal/codes"
	"github.com/kvqbook/kvqbook/kvq/internal/kernel"
	"github.com/kvqbook/kvqbook/kvq/internal/numbers"
)

// plainShape is one of two heads with three queries: 4 bits, groups of 32 channels.
func plainShape(blocks, exact int) kernel.Shape {
	format := func(keys bool) codes.Format {
		return codes.New(numbers.Spec{Quantizer: numbers.MinMax, Bits: 4, Keys: keys}, 32, 32, false, false)
	}
	return kernel.Shape{
		Key: format(true), Value: format(false), Batch: 1, Heads: 2, Queries: 3, Blocks: blocks, Exact: exact,
		CacheType: dtypes.Float32, QueryType: dtypes.Float32, Scores: attend.Scores{Scale: 1},
	}
}

func listAt[T any](at unsafe.Pointer, n int) []T { return unsafe.Slice((*T)(at), n) }

// By hand: the query 1, 0, 0, ... so that a score is the key's first element. Of the codes token 0
// has the key 0 and the value 3·(1 + channel mod 2), with scale 3; token 1 has the key 2·0.5·ln 2,
// with scale ln 2 / 2, and the value -3, its zero point; exact token 2 has the key ln 4 and the
// value 7. They weigh 1 : 2 : 4.
func TestAttendByHand(t *testing.T) {
	s := plainShape(1, 1)
	s.Heads, s.Queries = 1, 1
	l := newLayer(t, s, 1, []int32{2}, []int32{2})
	clear(listAt[float32](l.m.query, 32))
	listAt[float32](l.m.query, 32)[0] = 1
	copy(listAt[int32](l.m.codeIndex, 32), []int32{0, 1})
	listAt[int32](l.m.exactIndex, 1)[0] = 2
	keys, values := listAt[uint32](l.m.keyCodes, 4*32), listAt[uint32](l.m.valueCodes, 4*32)
	keys[0], keys[1] = keys[0]&^15, keys[1]&^15|2 // channel 0, of tokens 0 and 1
	scales, zeros := listAt[float32](l.m.keyScales, 32), listAt[float32](l.m.keyZeros, 32)
	scales[0], scales[1], zeros[0], zeros[1] = 1, math.Ln2/2, 0, 0
	for channel := range 32 {
		values[channel] = values[channel]&^0xff | uint32(1+channel%2)
	}
	scales, zeros = listAt[float32](l.m.valueScales, 32), listAt[float32](l.m.valueZeros, 32)
	scales[0], scales[1], zeros[0], zeros[1] = 3, 1, 0, -3
	listAt[float32](l.m.exactKeys, 32)[0] = float32(math.Log(4))
	for i := range 32 {
		listAt[float32](l.m.exactValues, 32)[i] = 7
	}
	withVectors(t, func(t *testing.T) {
		for i, got := range l.run(upwards(l.call.pieces)) {
			want := (float64(3*(1+i%2)) + 2*-3 + 4*7) / 7
			if math.Abs(float64(got)-want) > 1e-5 {
				t.Fatalf("channel %d: %v, want %v", i, got, want)
			}
		}
	})
}

// What a head sees that is not finite is not hidden, and stays in its head. What is in slots that
// it does not see does not come in. A count of slots in use that cannot be is taken for what can.
func TestWhatIsNotFinite(t *testing.T) {
	for _, softCap := range []float64{0, 3} {
		t.Run(fmt.Sprintf("soft cap %v", softCap), func(t *testing.T) { testNotFinite(t, softCap) })
	}
}

func testNotFinite(t *testing.T, softCap float64) {
	nan := float32(math.NaN())
	const blocks, exact = 20, 5 // two pieces of codes
	whole := func(t *testing.T) *layer {
		s := plainShape(blocks, exact)
		s.Scores.SoftCap = softCap
		return newLayer(t, s, 4, []int32{blocks * 32}, []int32{blocks * 32})
	}
	seen := func(l *layer, at unsafe.Pointer, want bool) int {
		for i, token := range listAt[int32](at, 5) {
			if (token >= 0 && token <= blocks*32) == want {
				return i
			}
		}
		t.Fatal("no such slot")
		return 0
	}
	for _, c := range []struct {
		name   string
		change func(l *layer)
		heads  []int // of six, that are NaN
	}{
		{"nothing", func(*layer) {}, nil},
		{"a query", func(l *layer) { listAt[float32](l.m.query, 6*32)[32+3] = nan }, []int{1}},
		{"an infinite query", func(l *layer) { listAt[float32](l.m.query, 6*32)[32+3] = float32(math.Inf(1)) }, []int{1}},
		{"an exact key that is seen", func(l *layer) {
			listAt[float32](l.m.exactKeys, 2*exact*32)[32*(exact+seen(l, l.m.exactIndex, true))] = nan
		}, []int{3, 4, 5}},
		{"an exact value that is seen", func(l *layer) {
			listAt[float32](l.m.exactValues, 2*exact*32)[32*seen(l, l.m.exactIndex, true)] = nan
		}, []int{0, 1, 2}},
		{"an exact token that is not", func(l *layer) {
			slot := seen(l, l.m.exactIndex, false)
			listAt[float32](l.m.exactKeys, 2*exact*32)[32*slot] = nan
			listAt[float32](l.m.exactValues, 2*exact*32)[32*slot] = nan
		}, nil},
		{"the scale of a key", func(l *layer) {
			listAt[float32](l.m.keyScales, 64)[seen(l, l.m.codeIndex, true)] = nan
		}, []int{0, 1, 2}},
		{"the scale of a value", func(l *layer) {
			listAt[float32](l.m.valueScales, 64)[32+seen(l, l.m.codeIndex, true)] = nan
		}, []int{3, 4, 5}},
		{"the zero point of a value", func(l *layer) {
			listAt[float32](l.m.valueZeros, 64)[seen(l, l.m.codeIndex, true)] = nan
		}, []int{0, 1, 2}},
		{"codes that are not seen", func(l *layer) {
			slot := 3
			listAt[int32](l.m.codeIndex, 32)[slot] = -1
			for _, x := range []unsafe.Pointer{l.m.keyScales, l.m.keyZeros, l.m.valueScales, l.m.valueZeros} {
				listAt[float32](x, 64)[slot] = nan
			}
		}, nil},
		{"too many in use", func(l *layer) { listAt[int32](l.m.used, 1)[0] = math.MaxInt32 }, nil},
		{"fewer than none", func(l *layer) { listAt[int32](l.m.used, 1)[0] = math.MinInt32 }, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := whole(t)
			c.change(l)
			withVectors(t, func(t *testing.T) {
				isNaN := map[int]bool{}
				for _, h := range c.heads {
					isNaN[h] = true
				}
				got := l.run(upwards(l.call.pieces))
				for head := range 6 {
					some := false
					for _, x := range got[head*32 : head*32+32] {
						some = some || math.IsNaN(float64(x)) || math.IsInf(float64(x), 0)
					}
					if some != isNaN[head] {
						t.Errorf("head %d: not finite %v, want %v", head, some, isNaN[head])
					}
				}
			})
		})
	}
}

// A row that sees nothing gives zeros.
func TestNothingToSee(t *testing.T) {
	l := newLayer(t, plainShape(2, 3), 1, []int32{64}, []int32{-1})
	withVectors(t, func(t *testing.T) {
		for i, x := range l.run(upwards(l.call.pieces)) {
			if x != 0 {
				t.Fatalf("element %d is %v", i, x)
			}
		}
	})
}

// Keys and values of 1e18 and of 1e-30 are as exact as others.
func TestLargeAndSmallScales(t *testing.T) {
	for _, size := range []float64{1e18, 1e-30} {
		l := newLayer(t, plainShape(4, 0), 9, []int32{128}, []int32{128})
		for _, x := range []unsafe.Pointer{l.m.valueScales, l.m.valueZeros} {
			for i, v := range listAt[float32](x, 4*2*32) {
				listAt[float32](x, 4*2*32)[i] = v * float32(size)
			}
		}
		want := l.want([]int32{128})
		withVectors(t, func(t *testing.T) {
			got := l.run(upwards(l.call.pieces))
			for i := range got {
				got[i] = float32(float64(got[i]) / size)
			}
			require(t, "scaled", got, want, 32, 2e-5)
		})
		for _, x := range []unsafe.Pointer{l.m.keyScales, l.m.keyZeros} { // scores of 1e18: one token takes all
			for i, v := range listAt[float32](x, 4*2*32) {
				listAt[float32](x, 4*2*32)[i] = v * float32(size)
			}
		}
		withVectors(t, func(t *testing.T) {
			for i, x := range l.run(upwards(l.call.pieces)) {
				if v := float64(x); math.IsNaN(v) || math.IsInf(v, 0) {
					t.Fatalf("element %d is %v", i, v)
				}
			}
		})
	}
}
