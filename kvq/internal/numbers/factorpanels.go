package numbers

import "github.com/kvqbook/kvqbook/internal/ptx"

// Factor as a kernel in PTX: a warp a matrix, which takes 16 columns at a time (a panel). What the
// columns before say is taken off all of a panel at once, by tensor units, so that only the 16
// columns of a panel wait for one another. A lane has every 32nd row of a panel in registers, from
// its first row on; the first lanes have the rows of the square at its top.
//
// Columns of L lie in shared memory, panel by panel, each from the panel's first row on: words of
// two columns as bfloat16, eight rows of them, and then what these miss, which is right to 2^-16.
// Row r of every third and fourth pair lies at r ^ 8, so that lanes that ask for tensor units do
// not all meet in a bank. Before its columns are known, the place of a panel has what is to be
// taken off it, by row.

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
	words := panel * panel // rows behind the last one, of no meaning
	for first := 0; first < dim; first += panel {
		words += panel * (dim - first)
	}
	f := factorPanels{k: k, dim: dim, lane: lane, in: in, out: out}
	f.memory = k.Shared((words + dim + ptx.Lanes) * 4)
	f.pivots = k.Add(f.memory, k.Int(words*4))
	f.nowhere = k.Add(k.Add(f.pivots, k.Int(dim*4)), k.Mul(lane, k.Int(4)))
	f.first, f.height, f.place = k.Variable(k.Int(0)), k.Variable(k.Int(dim)), k.Variable(f.memory)
	// The fewer rows are left, the fewer a lane has.
	for groups := (dim + ptx.Lanes - 1) / ptx.Lanes; groups > 0; groups-- {
		next := k.NewLabel()
		k.Here(next)
		f.panel(groups)
		k.Set(f.place, k.Add(f.place, k.Mul(f.height, k.Int(panel*4))))
		k.Set(f.first, k.Add(f.first, k.Int(panel)))
		k.Set(f.height, k.Sub(f.height, k.Int(panel)))
		k.Branch(next, k.Less(k.Int((groups-1)*ptx.Lanes), f.height))
	}
	return k
}

// factorPanels is the kernel under construction.
type factorPanels struct {
	k                       *ptx.Kernel
	dim                     int
	lane, in, out           ptx.Value
	memory, pivots, nowhere ptx.Value // of shared memory
	first, height, place    ptx.Value // of the panel: its first row and column, its rows, where it lies
}

// panel makes the next 16 columns, of which a lane has so many rows.
func (f factorPanels) panel(groups int) {
	k, dim := f.k, f.dim
	x := make([][]ptx.Value, groups)
	rows := make([]ptx.Value, groups)
	for q := range x {
		rows[q] = k.Add(k.Add(f.first, f.lane), k.Int(q*ptx.Lanes))
		// The matrix is symmetric, so its column is this row.
		at := k.At(f.in, k.Add(k.Mul(f.first, k.Int(dim)), k.Min(rows[q], k.Int(dim-1))), 4)
		for c := range panel {
			x[q] = append(x[q], k.LoadWord(at, c*dim*4))
		}
	}
	f.takeOff(groups)
	k.Await(0)
	for q := range x {
		row := k.Add(f.lane, k.Int(q*ptx.Lanes))
		for quad := range 4 {
			off := k.LoadShared(4, f.quad(row, k.Int(quad)), 0)
			for i, v := range off {
				x[q][4*quad+i] = k.FSub(x[q][4*quad+i], v)
			}
		}
	}
	k.Await(0)
	for c := range panel {
		top := make([]ptx.Value, panel) // the row of the pivot, from it on
		for i := c; i < panel; i++ {
			top[i] = k.FromLane(x[0][c], k.Int(i))
		}
		scale := k.FDiv(k.Float(1), k.FMax(top[c], k.Float(tiny)))
		for q := range x {
			x[q][c] = k.FMul(x[q][c], scale)
			less := k.FSub(k.Float(0), x[q][c])
			for i := c + 1; i < panel; i++ {
				x[q][i] = k.FMulAdd(less, top[i], x[q][i])
			}
		}
		k.StoreShared(k.Add(f.pivots, k.Mul(f.first, k.Int(4))), c*4, top[c])
	}
	for q := range x {
		inside := k.LessUnsigned(rows[q], k.Int(dim))
		at := k.At(f.out, k.Add(k.Mul(rows[q], k.Int(dim)), f.first), 4)
		for c := 0; c < panel; c += 4 {
			k.Store(inside, at, c*4, x[q][c:c+4]...)
		}
		row := k.Add(f.lane, k.Int(q*ptx.Lanes))
		for pair := range panel / 2 {
			near, miss := k.InHalves(x[q][2*pair], x[q][2*pair+1])
			for i, v := range []ptx.Value{near, miss} {
				at := k.Add(k.Mul(f.height, k.Int(8*i+pair)), k.Xor(row, k.Int(pair&2*4)))
				k.StoreShared(k.Select(inside, k.Add(f.place, k.Mul(at, k.Int(4))), f.nowhere), 0, v)
			}
		}
	}
	k.Await(0) // what lanes wrote to shared memory is there for all
}

// quad is where four numbers of a row lie that are to be taken off it.
func (f factorPanels) quad(row, quad ptx.Value) ptx.Value {
	k := f.k
	quad = k.Xor(quad, k.And(k.ShiftRight(row, k.Int(1)), k.Int(3)))
	return k.Add(f.place, k.Add(k.Mul(row, k.Int(64)), k.Mul(quad, k.Int(16))))
}

// takeOff writes to the panel's place what the columns before say: a product of [rows, columns
// before] and [columns before, 16] by tensor units. Of its columns, number 8h + c is 2c + h: then a
// lane has four in a row.
func (f factorPanels) takeOff(groups int) {
	k := f.k
	g, t := k.ShiftRight(f.lane, k.Int(2)), k.And(f.lane, k.Int(3))
	sums := make([][2][4]ptx.Value, 2*groups)
	for i := range sums {
		for h := range sums[i] {
			for j := range sums[i][h] {
				sums[i][h][j] = k.Variable(k.Float(0))
			}
		}
	}
	swap := k.Mul(k.And(t, k.Int(2)), k.Int(4))
	pivots, place, height := k.Variable(k.Add(f.pivots, k.Mul(t, k.Int(8)))), k.Variable(f.memory), k.Variable(k.Int(f.dim))
	turn, done := k.NewLabel(), k.NewLabel()
	k.Branch(done, k.Equal(f.first, k.Int(0)))
	k.Here(turn)
	// From the panel's first row on: pairs t and t+4 of columns, and what these miss.
	base := k.Add(place, k.Mul(k.Sub(height, f.height), k.Int(4)))
	var pairs [2][2]ptx.Value
	for miss := range pairs {
		for r := range pairs[miss] {
			pairs[miss][r] = k.Add(base, k.Mul(k.Mul(k.Add(t, k.Int(8*miss+4*r)), height), k.Int(4)))
		}
	}
	var by [2][2][2]ptx.Value // near and what that misses, by half of the columns, of half of the rows
	for r := range 2 {
		pivot := k.LoadShared(2, pivots, r*8*4)
		for h := range 2 {
			row := k.Mul(k.Xor(k.Add(k.Mul(g, k.Int(2)), k.Int(h)), swap), k.Int(4))
			near, miss := k.LoadShared(1, k.Add(pairs[0][r], row), 0)[0], k.LoadShared(1, k.Add(pairs[1][r], row), 0)[0]
			low := k.FMul(k.FAdd(k.Low(ptx.BF16, near), k.Low(ptx.BF16, miss)), pivot[0])
			high := k.FMul(k.FAdd(k.High(ptx.BF16, near), k.High(ptx.BF16, miss)), pivot[1])
			by[0][h][r], by[1][h][r] = k.InHalves(low, high)
		}
	}
	var at [2][2][2]ptx.Value // by what is missed, half of the pairs and of the rows
	for half := range 2 {
		row := k.Mul(k.Xor(k.Add(g, k.Int(8*half)), swap), k.Int(4))
		for miss := range 2 {
			for r := range 2 {
				at[miss][r][half] = k.Add(pairs[miss][r], row)
			}
		}
	}
	for i := range sums {
		var rows [2][4]ptx.Value
		for miss := range rows {
			for j := range 4 {
				rows[miss][j] = k.LoadShared(1, at[miss][j/2][j%2], i*16*4)[0]
			}
		}
		for h, c := range sums[i] {
			for _, parts := range [][2]int{{0, 1}, {1, 0}, {0, 0}} {
				c = k.Units(ptx.BF16, rows[parts[0]], by[parts[1]][h], c)
			}
			for j, v := range c {
				k.Set(sums[i][h][j], v)
			}
		}
	}
	k.Set(place, k.Add(place, k.Mul(height, k.Int(panel*4))))
	k.Set(pivots, k.Add(pivots, k.Int(panel*4)))
	k.Set(height, k.Sub(height, k.Int(panel)))
	k.Branch(turn, k.Less(f.height, height))
	k.Here(done)
	for i, c := range sums {
		for half := range 2 {
			at := f.quad(k.Add(g, k.Int(16*i+8*half)), t)
			k.StoreShared(at, 0, c[0][2*half], c[1][2*half], c[0][2*half+1], c[1][2*half+1])
		}
	}
}
