package ptx

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/gomlx/compute/dtypes/float16"
)

// sums adds the rows of a matrix [n, 32], one row an iteration: program p takes every second row,
// from p on, by way of shared memory. Lane i then has the sum of column i and of column i^1, times
// 2^-1; even lanes store it. It has instructions of most kinds.
func sums(n int) *Kernel {
	k := New("sums")
	k.Registers = 64
	x, out := k.Pointer(), k.Pointer()
	lane, p := k.Lane(), k.Program(0)
	row := k.Shared(2 * 128) // a row that is read, and one on its way
	i, sum := k.Variable(p), k.Variable(k.Float(0))
	place := k.Variable(k.Int(0))
	copyRow := func(to, i Value) {
		inside := k.Both(k.LessUnsigned(lane, k.Int(8)), k.Less(i, k.Int(n)))
		k.Copy(inside, k.Add(k.Add(row, to), k.Mul(lane, k.Int(16))), 0, k.At(k.At(x, i, 128), lane, 16), 0)
		k.Commit()
	}
	copyRow(place, i)
	loop, done := k.NewLabel(), k.NewLabel()
	k.Branch(done, k.Less(k.Int(n-1), i))
	k.Here(loop)
	k.Await(0)
	copyRow(k.Xor(place, k.Int(128)), k.Add(i, k.Int(2)))
	k.Set(sum, k.FAdd(sum, k.LoadShared(1, k.Add(k.Add(row, place), k.Mul(lane, k.Int(4))), 0)[0]))
	k.Set(place, k.Xor(place, k.Int(128)))
	k.Set(i, k.Add(i, k.Int(2)))
	k.Branch(loop, k.Less(i, k.Int(n)))
	k.Here(done)
	both := k.FMul(k.FAdd(sum, k.Across(sum, 1)), k.Exp2(k.Float(-1)))
	even := k.Equal(k.And(lane, k.Int(1)), k.Int(0))
	k.Store(even, k.At(k.At(out, p, 64), k.ShiftRight(lane, k.Int(1)), 4), 0, both)
	return k
}

// The text that ptxas 13.5 assembled, for compute capabilities 8.0 and 9.0.
func TestText(t *testing.T) {
	got := sums(5).Text()
	golden := filepath.Join("testdata", "sums.ptx")
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("the text differs from %s:\n%s", golden, got)
	}
}

func TestRun(t *testing.T) {
	x := make([]float32, 5*32)
	for i := range x {
		x[i] = float32(i % 32 * (1 + i/32)) // row r holds (r+1)·column
	}
	for _, copies := range []Copies{Late, Early} {
		out := make([]float32, 2*16)
		sums(5).Run([2]int{2, 1}, Memory{x, out}, copies)
		// Program 0 has rows 0, 2 and 4: 9·column. Program 1 has rows 1 and 3: 6·column. Columns 2i
		// and 2i + 1 are 4i + 1.
		for p, factor := range []float32{9, 6} {
			for i := range 16 {
				if got, want := out[16*p+i], factor*float32(4*i+1)/2; got != want {
					t.Errorf("copies %v, program %d, pair %d: %v, want %v", copies, p, i, got, want)
				}
			}
		}
	}
}

// A copy that nobody waited for is not there.
func TestCopiesComeLate(t *testing.T) {
	k := New("hasty")
	x, out := k.Pointer(), k.Pointer()
	row, lane := k.Shared(512), k.Lane()
	always := k.LessUnsigned(lane, k.Int(Lanes))
	k.Copy(always, k.Add(row, k.Mul(lane, k.Int(16))), 0, k.At(x, lane, 16), 0)
	k.Commit()
	k.Store(always, k.At(out, lane, 4), 0, k.LoadShared(1, k.Add(row, k.Mul(lane, k.Int(4))), 0)...)
	x1 := make([]float32, 128)
	for i := range x1 {
		x1[i] = 1
	}
	for copies, want := range map[Copies]float32{Late: 0, Early: 1} {
		got := make([]float32, Lanes)
		k.Run([2]int{1, 1}, Memory{x1, got}, copies)
		if got[31] != want {
			t.Errorf("copies %v: %v, want %v", copies, got[31], want)
		}
	}
}

// Tensor units multiply matrices that lie in lanes as [Kernel.Units] says; numbers of 16 bits that
// are subnormal too.
func TestUnits(t *testing.T) {
	// a[r][c] = r + 2c in units of the least number, b[r][c] = r - c in others, and c[r][c] = 1 for
	// r == c in those of the product.
	for _, test := range []struct {
		name   string
		elem   Elem
		a, b   int // exponents of the units
		number func(x float64) uint32
	}{
		{"bfloat16", BF16, -133, 100, func(x float64) uint32 { return math.Float32bits(float32(x)) >> 16 }},
		{"float16", F16, -24, 10, func(x float64) uint32 { return uint32(float16.FromFloat32(float32(x))) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			pair := func(low, high float64) uint32 { return test.number(low) | test.number(high)<<16 }
			a := func(r, c int) float64 { return math.Ldexp(float64(r+2*c), test.a) }
			b := func(r, c int) float64 { return math.Ldexp(float64(r-c), test.b) }
			unit := math.Ldexp(1, test.a+test.b)
			words := make([]uint32, Lanes*10)
			for lane := range Lanes {
				g, t := lane/4, lane%4
				w := words[10*lane:]
				for j := range 4 {
					r, c := g+j%2*8, 2*t+j/2*8
					w[j] = pair(a(r, c), a(r, c+1))
				}
				for j := range 2 {
					w[4+j] = pair(b(2*t+8*j, g), b(2*t+8*j+1, g))
				}
				for j := range 4 {
					if g+j/2*8 == 2*t+j%2 {
						w[6+j] = math.Float32bits(float32(unit))
					}
				}
			}
			k := New("units")
			in, out := k.Pointer(), k.Pointer()
			lane := k.Lane()
			at := k.At(in, lane, 40)
			var list [10]Value
			for i := range list {
				list[i] = k.LoadWord(at, 4*i)
			}
			c := k.Units(test.elem, [4]Value(list[:4]), [2]Value(list[4:6]), [4]Value(list[6:]))
			k.Store(k.LessUnsigned(lane, k.Int(Lanes)), k.At(out, lane, 16), 0, c[:]...)
			got := make([]float32, Lanes*4)
			k.Run([2]int{1, 1}, Memory{words, got}, Late)
			for lane := range Lanes {
				for j := range 4 {
					row, column := lane/4+j/2*8, lane%4*2+j%2
					want := 0
					if row == column {
						want = 1
					}
					for i := range 16 {
						want += (row + 2*i) * (i - column)
					}
					if got := float64(got[4*lane+j]) / unit; got != float64(want) {
						t.Errorf("row %d, column %d: %v, want %d", row, column, got, want)
					}
				}
			}
		})
	}
}

func TestUnitsBytes(t *testing.T) {
	// a[r][c] = 7r + 3c + 50, up to 248; b[r][c] = 5r - 8c - 72, from -128 to 83; c[r][c] = r -
	// 100c.
	a := func(r, c int) int { return 7*r + 3*c + 50 }
	b := func(r, c int) int { return 5*r - 8*c - 72 }
	four := func(at func(i int) int) (word uint32) {
		for i := range 4 {
			word |= uint32(uint8(at(i))) << (8 * i)
		}
		return word
	}
	words := make([]uint32, Lanes*10)
	for lane := range Lanes {
		g, t := lane/4, lane%4
		w := words[10*lane:]
		for j := range 4 {
			w[j] = four(func(i int) int { return a(g+j%2*8, 4*t+j/2*16+i) })
		}
		for j := range 2 {
			w[4+j] = four(func(i int) int { return b(4*t+16*j+i, g) })
		}
		for j := range 4 {
			w[6+j] = uint32(int32(g + j/2*8 - 100*(2*t+j%2)))
		}
	}
	k := New("units")
	in, out := k.Pointer(), k.Pointer()
	lane := k.Lane()
	at := k.At(in, lane, 40)
	var list [10]Value
	for i := range list {
		list[i] = k.LoadWord(at, 4*i)
	}
	c := k.UnitsBytes([4]Value(list[:4]), [2]Value(list[4:6]), [4]Value(list[6:]))
	k.Store(k.LessUnsigned(lane, k.Int(Lanes)), k.At(out, lane, 16), 0, c[:]...)
	got := make([]int32, Lanes*4)
	k.Run([2]int{1, 1}, Memory{words, got}, Late)
	for lane := range Lanes {
		for j := range 4 {
			row, column := lane/4+j/2*8, lane%4*2+j%2
			want := row - 100*column
			for i := range 32 {
				want += a(row, i) * b(i, column)
			}
			if got := got[4*lane+j]; int(got) != want {
				t.Errorf("row %d, column %d: %d, want %d", row, column, got, want)
			}
		}
	}
}

// What lanes find together, and what they hand on in shared memory: lane i has i+3.
func TestTogether(t *testing.T) {
	k := New("together")
	out := k.Pointer()
	lane := k.Lane()
	shared := k.Shared(Lanes * 16)
	x := k.Add(lane, k.Int(3))
	most := k.MaxUnsigned(x)
	first := k.LessUnsigned(lane, k.Int(16))
	k.StoreShared(k.Add(shared, k.Mul(lane, k.Int(16))), 0, x, k.MulAdd(x, x, k.Int(1)), most, k.ToInt(k.Float(-2.5)))
	k.StoreSharedIf(&first, k.Add(shared, k.Mul(lane, k.Int(16))), 8, k.Permute(k.Bits(0x44332211), k.Bits(0x88776655), k.Int(0x7250)))
	k.Meet()
	next := k.And(k.Add(lane, k.Int(1)), k.Int(Lanes-1))
	list := k.LoadShared(4, k.Add(shared, k.Mul(next, k.Int(16))), 0)
	k.Store(k.LessUnsigned(lane, k.Int(Lanes)), k.At(out, lane, 16), 0, list...)
	got := make([]uint32, Lanes*4)
	k.Run([2]int{1, 1}, Memory{got}, Late)
	for lane := range Lanes {
		next := uint32(lane+1) % Lanes
		want := [4]uint32{next + 3, (next+3)*(next+3) + 1, Lanes + 2, 0xfffffffe}
		if next < 16 {
			want[2] = 0x88336611
		}
		if [4]uint32(got[4*lane:]) != want {
			t.Errorf("lane %d: %x, want %x", lane, got[4*lane:4*lane+4], want)
		}
	}
}

func TestToInt(t *testing.T) {
	for x, want := range map[float32]int32{0.5: 0, 1.5: 2, -1.5: -2, 3e9: math.MaxInt32, -3e9: math.MinInt32, float32(math.NaN()): 0} {
		if got := toInt(x); got != want {
			t.Errorf("%v: %d, want %d", x, got, want)
		}
	}
}

// Numbers of 16 bits, and how float32 become them.
func TestHalves(t *testing.T) {
	k := New("halves")
	in, out := k.Pointer(), k.Pointer()
	lane := k.Lane()
	x, y := k.LoadWord(in, 0), k.LoadWord(in, 4)
	pair := k.Halves(BF16, x, y)
	half := k.LoadWord(in, 8)
	list := []Value{
		k.Low(BF16, pair), k.High(BF16, pair), k.Low(F16, half), k.High(F16, half), k.HighHalves(x, y), k.LowHalves(half, k.Int(7)),
		k.Halves(F16, k.Float(1), k.Float(-2)),
	}
	for i, v := range list {
		k.Store(k.Equal(lane, k.Int(0)), out, 4*i, v)
	}
	got := make([]float32, len(list))
	// 1 + 2^-8 lies halfway between 1 and 1 + 2^-7: to even. 0x3c00 is 1 in float16, 0xc000 -2.
	k.Run([2]int{1, 1}, Memory{[]uint32{math.Float32bits(1 + 0x1p-8), math.Float32bits(1 + 0x1.8p-7), 0xc0003c00}, got}, Late)
	if want := []float32{1, 1 + 0x1p-6, 1, -2, math.Float32frombits(0x3f813f80), math.Float32frombits(0x00073c00), math.Float32frombits(0xc0003c00)}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// Instructions on a lane's numbers, and what lanes tell one another.
func TestNumbers(t *testing.T) {
	k := New("numbers")
	in, out := k.Pointer(), k.Pointer()
	lane := k.Lane()
	nan := k.Float(float32(math.NaN()))
	one := func(condition Value) Value { return k.Select(condition, k.Float(1), k.Float(0)) }
	pair := k.LoadPair(in, 8)
	shared := k.Shared(32)
	k.StoreShared(shared, 16, k.Float(1), k.Float(2), k.Float(3), k.Float(4))
	for i, test := range []struct {
		value Value
		want  float32
	}{
		{k.FQuotient(k.Float(1), k.Float(3)), 1.0 / 3},
		{k.FSqrt(k.Float(2)), math.Sqrt2},
		{k.FAbs(k.Float(-3)), 3},
		{k.FMulAddWithin1(k.Float(2), k.Float(3), k.Float(-5.5)), 0.5},
		{k.FMulAddWithin1(k.Float(2), k.Float(3), k.Float(-5)), 1},
		{k.FMulAddWithin1(k.Float(2), k.Float(3), k.Float(-7)), 0},
		{k.FMulAddWithin1(nan, k.Float(3), k.Float(1)), 0},
		{one(k.FLess(k.Float(1), k.Float(2))), 1},
		{one(k.FLess(k.Float(2), k.Float(2))), 0},
		{one(k.FLess(nan, k.Float(2))), 0},
		{k.FromInt(k.CountBits(k.Bits(0xf0010000))), 5},
		{k.FromInt(k.ShiftRight(k.Lanes(k.LessUnsigned(lane, k.Int(3))), k.Int(1))), 3}, // lanes 0, 1 and 2
		{k.FromInt(k.LoadByte(in, 5)), 0x12},                                            // of 0x1234, the second word
		{k.FAdd(pair[0], pair[1]), 9},
		{k.LoadShared(1, shared, 24)[0], 3},
	} {
		k.StoreLow(4, out, 0, test.value)
		got := []float32{0}
		// What comes before runs again, and stores are overwritten.
		k.Run([2]int{1, 1}, Memory{[]uint32{1, 0x1234, math.Float32bits(4), math.Float32bits(5)}, got}, Late)
		if got[0] != test.want {
			t.Errorf("%d: %v, want %v", i, got[0], test.want)
		}
	}
}

// The low bytes of a word.
func TestStoreLow(t *testing.T) {
	k := New("low")
	bytes, halves := k.Pointer(), k.Pointer()
	k.StoreLow(1, bytes, 1, k.Bits(0x12345678))
	k.StoreLow(2, halves, 2, k.Bits(0x12345678))
	gotBytes, gotHalves := make([]uint8, 3), make([]uint16, 3)
	k.Run([2]int{1, 1}, Memory{gotBytes, gotHalves}, Late)
	if !slices.Equal(gotBytes, []uint8{0, 0x78, 0}) || !slices.Equal(gotHalves, []uint16{0, 0x5678, 0}) {
		t.Errorf("%x and %x", gotBytes, gotHalves)
	}
}

func TestMismatchesPanic(t *testing.T) {
	for name, f := range map[string]func(k *Kernel){
		"a predicate added":   func(k *Kernel) { k.Add(k.Int(1), k.Less(k.Int(1), k.Int(2))) },
		"a word as address":   func(k *Kernel) { k.LoadWord(k.Int(1), 0) },
		"three words at once": func(k *Kernel) { k.LoadShared(3, k.Int(0), 0) },
		"lanes part": func(k *Kernel) {
			l := k.NewLabel()
			k.Branch(l, k.Less(k.Lane(), k.Int(4)))
			k.Here(l)
			k.Run([2]int{1, 1}, nil, Late)
		},
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			f(New("wrong"))
		})
	}
}
