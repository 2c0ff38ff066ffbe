package numbers

import "github.com/kvqbook/kvqbook/internal/ptx"

// Factor as a kernel in PTX: a warp a matrix, which takes 16 columns at a time (a panel). What the
// columns before say is taken off all of a panel at once, so that only the 16 columns of a panel
// wait for one another. A lane has every 32nd row of it in registers, and once more a row of the
// square at its top, whose numbers all lanes ask for.

// panel is the columns of one.
const panel = 16

// panelsTake reports whether the kernel takes matrices of so many channels: what it keeps of a
// matrix lies in shared memory.
func panelsTake(dim int) bool { return dim%panel == 0 && dim <= 128 }

// factorByPanels writes it, for a grid of B·K programs.
//
//	m [B·K, D, D] -> factor [B·K, D, D], float32
func factorByPanels(dim int) *ptx.Kernel {
	k := ptx.New("factor_by_panels")
	in, out := k.Pointer(), k.Pointer()
	head, lane := k.Program(0), k.Lane()
	in, out = k.At(in, k.Mul(head, k.Int(dim*dim)), 4), k.At(out, k.Mul(head, k.Int(dim*dim)), 4)
	// Columns of L, one after the other, from the first row of their panel on; then the pivots, and
	// a place for what nobody reads.
	numbers := 0
	for first := 0; first < dim; first += panel {
		numbers += panel * (dim - first)
	}
	memory := k.Shared((numbers + dim + ptx.Lanes) * 4)
	pivots := k.Add(memory, k.Int(numbers*4))
	nowhere := k.Add(k.Add(pivots, k.Int(dim*4)), k.Mul(lane, k.Int(4)))

	first := k.Variable(k.Int(0))
	column := k.Variable(memory)         // where row 0 of the panel's first column would be
	height := k.Variable(k.Int(dim * 4)) // bytes from a column of the panel to the next
	top := k.NewLabel()
	k.Here(top)
	rows := make([]ptx.Value, 0, 5) // of the lane: the last one lies in the square
	for from := 0; from < dim; from += ptx.Lanes {
		rows = append(rows, k.Add(lane, k.Int(from)))
	}
	square := len(rows)
	rows = append(rows, k.Add(first, k.And(lane, k.Int(panel-1))))
	x := make([][]ptx.Value, len(rows)) // by row and column
	for q, row := range rows {
		// The matrix is symmetric, so its column is this row.
		at := k.At(in, k.Add(k.Mul(first, k.Int(dim)), k.Min(row, k.Int(dim-1))), 4)
		for c := range panel {
			x[q] = append(x[q], k.Variable(k.LoadWord(at, c*dim*4)))
		}
	}
	takeOff(k, dim, x, rows, first, memory, pivots)

	for c := range panel {
		top := make([]ptx.Value, panel) // the row of the pivot, from it on
		for i := c; i < panel; i++ {
			top[i] = k.FromLane(x[square][c], k.Int(i))
		}
		pivot := top[c]
		scale := k.FDiv(k.Float(1), k.FMax(pivot, k.Float(tiny)))
		place := k.Add(column, k.Mul(height, k.Int(c)))
		for q, row := range rows {
			k.Set(x[q][c], k.FMul(x[q][c], scale))
			for i := c + 1; i < panel; i++ {
				k.Set(x[q][i], k.FSub(x[q][i], k.FMul(x[q][c], top[i])))
			}
			if q < square {
				inside := k.Both(k.AtMostUnsigned(first, row), k.LessUnsigned(row, k.Int(dim)))
				k.StoreShared(k.Select(inside, k.Add(place, k.Mul(row, k.Int(4))), nowhere), 0, x[q][c])
			}
		}
		k.StoreShared(k.Add(pivots, k.Mul(k.Add(first, k.Int(c)), k.Int(4))), 0, pivot)
	}
	for q, row := range rows[:square] {
		at := k.At(out, k.Add(k.Mul(row, k.Int(dim)), first), 4)
		for c := 0; c < panel; c += 4 {
			k.Store(k.LessUnsigned(row, k.Int(dim)), at, c*4, x[q][c:c+4]...)
		}
	}
	k.Await(0) // what lanes wrote to shared memory is there for all
	k.Set(first, k.Add(first, k.Int(panel)))
	k.Set(column, k.Add(k.Add(column, k.Mul(height, k.Int(panel))), k.Int(-panel*4)))
	k.Set(height, k.Add(height, k.Int(-panel*4)))
	k.Branch(top, k.Less(first, k.Int(dim)))
	return k
}

// takeOff takes what the columns before a panel say off it.
func takeOff(k *ptx.Kernel, dim int, x [][]ptx.Value, rows []ptx.Value, first, memory, pivots ptx.Value) {
	before, column, height := k.Variable(k.Int(0)), k.Variable(memory), k.Variable(k.Int(dim*4))
	turn, done := k.NewLabel(), k.NewLabel()
	k.Branch(done, k.Equal(first, k.Int(0)))
	k.Here(turn)
	weights := k.Add(pivots, k.Mul(before, k.Int(4)))
	for c := range panel {
		at := k.Add(column, k.Mul(height, k.Int(c)))
		pivot := k.LoadShared(1, weights, c*4)[0]
		var top []ptx.Value // the rows of the panel's square
		for part := 0; part < panel; part += 4 {
			top = append(top, k.LoadShared(4, k.Add(at, k.Mul(first, k.Int(4))), part*4)...)
		}
		for q, row := range rows {
			// Rows before the panel mean nothing; what they read is somewhere in the memory.
			mine := k.LoadShared(1, k.Add(at, k.Mul(k.Min(row, k.Int(dim-1)), k.Int(4))), 0)[0]
			mine = k.FSub(k.Float(0), k.FMul(mine, pivot))
			for i := range panel {
				k.Set(x[q][i], k.FMulAdd(mine, top[i], x[q][i]))
			}
		}
	}
	k.Set(before, k.Add(before, k.Int(panel)))
	k.Set(column, k.Add(k.Add(column, k.Mul(height, k.Int(panel))), k.Int(-panel*4)))
	k.Set(height, k.Add(height, k.Int(-panel*4)))
	k.Branch(turn, k.Less(before, first))
	k.Here(done)
}
