package ttir

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// sumOfSquares adds the squares of the rows of a matrix [n, 8], one row an iteration: program p
// takes every second row, from p on. It has one of each kind of operation.
func sumOfSquares(n int) *Kernel {
	k := New("sum_of_squares")
	x, out := k.Pointer(F32), k.Pointer(F32)
	p := k.ProgramID(0)
	column := k.Range(8, 0, 1)
	sums := k.For(p, k.Int(n), 2, 3, []Value{k.Fill(k.Float(0), 8)}, func(i Value, carried []Value) []Value {
		row := Load(x, Add(i.MulInt(8), column))
		return []Value{MulAdd(row, row, carried[0])}
	})
	even, odd := sums[0].Reshape(4, 2).Split()
	joined := Add(even.Expand(1), odd.Expand(0)) // [4, 4]: every even column with every odd one
	largest := Select(Less(k.Range(4, 0, 2), k.Range(4, 1, 2)), joined.Transpose(1, 0), joined).Max(0)
	Store(out, Add(p.MulInt(4), k.Range(4, 0, 1)), largest)
	return k
}

// The text that XLA 2026-06 (jaxlib 0.11.2) parsed and compiled (its loop without the attribute of
// stages, which the kernels of kvq have had compiled).
func TestText(t *testing.T) {
	got := sumOfSquares(4).Text()
	golden := filepath.Join("testdata", "sum_of_squares.ttir")
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("the text differs from %s:\n%s", golden, got)
	}
}

func TestRun(t *testing.T) {
	x := make([]float32, 4*8)
	for i := range x {
		x[i] = float32(i % 8 * (1 + i/8)) // row r holds (r+1)·column
	}
	out := make([]float32, 2*4)
	sumOfSquares(4).Run([3]int{2, 1, 1}, Memory{x, out})
	// Program 0 has rows 0 and 2: column c sums to 10c². Of even e and odd o columns, joined[e][o]
	// = 10(e²+o²), e in 0,2,4,6 and o in 1,3,5,7. Where row < column the transposed one is taken;
	// column j then has the largest of joined[i][j] for i >= j and joined[j][i] for i < j. Program
	// 1 has rows 1 and 3: 20c².
	joined := func(i, j int) float32 { return float32(4*i*i + (2*j+1)*(2*j+1)) }
	for p, factor := range []float32{10, 20} {
		for j := range 4 {
			want := float32(0)
			for i := range 4 {
				v := joined(i, j)
				if i < j {
					v = joined(j, i)
				}
				want = max(want, factor*v)
			}
			if got := out[p*4+j]; got != want {
				t.Errorf("program %d, column %d: %v, want %v", p, j, got, want)
			}
		}
	}
}

func TestColumns(t *testing.T) {
	k := New("columns")
	out := k.Pointer(F32)
	for i, c := range k.Range(8, 1, 2).ToFloat().Columns() { // [1, 8] -> [1] each
		Store(out, k.Fill(k.Int(i), 1), c)
	}
	got := make([]float32, 8)
	k.Run([3]int{1, 1, 1}, Memory{got})
	if !slices.Equal(got, []float32{0, 1, 2, 3, 4, 5, 6, 7}) {
		t.Errorf("columns %v", got)
	}
}

func TestMismatchesPanic(t *testing.T) {
	k := New("wrong")
	for name, f := range map[string]func(){
		"types":    func() { Add(k.Int(1), k.Float(1)) },
		"shapes":   func() { Add(k.Range(4, 0, 1), k.Range(8, 0, 1)) },
		"ranks":    func() { Add(k.Range(4, 0, 1), k.Range(4, 0, 2)) },
		"elements": func() { k.Range(4, 0, 1).Reshape(8) },
		"stored":   func() { Store(k.Pointer(F32), k.Int(0), k.Int(1)) },
		"carried": func() {
			k.For(k.Int(0), k.Int(1), 1, 1, []Value{k.Int(0)}, func(Value, []Value) []Value { return []Value{k.Float(0)} })
		},
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			f()
		})
	}
}
