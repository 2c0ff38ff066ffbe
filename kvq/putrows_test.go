package kvq

import (
	"slices"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/testbackend"
)

// The columns of each row go to its own slots: all rows at once, as on a GPU, and one after the
// other. Five slots a row, of which some rows fill the last one, some want more than there are, and
// some have fewer tokens than columns. What is written is told from the rule alone.
func TestPutRows(t *testing.T) { putsRows(t, testbackend.XLA(t)) }

func TestPutRowsOnCUDA(t *testing.T) { putsRows(t, testbackend.CUDA(t)) }

func putsRows(t *testing.T, backend compute.Backend) {
	const batch, heads, slots, dim = 3, 2, 5, 2
	forms := map[string]func(x, more [2]*Node, rows int, slot, counts *Node) [2]*Node{"at once": scatterRows, "in turn": putRowsInTurn}
	for _, c := range []struct {
		rows, columns int // the axis of rows
		slot, counts  []int32
	}{
		{rows: 0, columns: 1, slot: []int32{0, 4, 2}},
		{rows: 1, columns: 1, slot: []int32{4, 4, 0}, counts: []int32{1, 0, 1}},
		{rows: 0, columns: 3, slot: []int32{2, 0, 1}},
		{rows: 1, columns: 3, slot: []int32{0, 3, 4}, counts: []int32{2, 3, 0}},
		{rows: 0, columns: 3, slot: []int32{4, 2, 3}, counts: []int32{1, 3, 2}},
	} {
		shape := []int{batch, heads, slots, dim}
		if c.rows == 1 {
			shape[0], shape[1] = heads, batch
		}
		old := func(i int) float32 { return float32(-1 - i) }
		var before, more [2][]float32
		for side := range before {
			for i := range batch * heads * slots * dim {
				before[side] = append(before[side], old(i))
			}
			for i := range batch * heads * c.columns * dim {
				more[side] = append(more[side], float32(1000*side+i))
			}
		}
		want := [2][]float32{slices.Clone(before[0]), slices.Clone(before[1])}
		for i := range batch * heads * c.columns * dim {
			at := []int{i / (shape[1] * c.columns * dim), i / (c.columns * dim) % shape[1]}
			column, channel, count := i/dim%c.columns, i%dim, c.columns
			row := at[c.rows]
			if c.counts != nil {
				count = int(c.counts[row])
			}
			token := column - (c.columns - count)
			slot := int(c.slot[row]) + token
			if token < 0 || slot >= slots {
				continue
			}
			for side := range want {
				want[side][((at[0]*shape[1]+at[1])*slots+slot)*dim+channel] = more[side][i]
			}
		}
		for name, form := range forms {
			out := MustNewExec(backend, func(in []*Node) []*Node {
				wide := func(x *Node, slots int) *Node { return Reshape(x, shape[0], shape[1], slots, dim) }
				var counts *Node
				if c.counts != nil {
					counts = in[5]
				}
				// In a loop, as caches are written.
				out := gx.LoopOver(in[2:], append([]*Node{gx.Scalar(in[0].Graph(), dtypes.Int32, 0)}, in[:2]...),
					func(st []*Node) *Node { return gx.LessThanScalar(st[0], 2) },
					func(captured, st []*Node) []*Node {
						if counts != nil {
							counts = captured[3]
						}
						x := form([2]*Node{wide(st[1], slots), wide(st[2], slots)},
							[2]*Node{wide(captured[0], c.columns), wide(captured[1], c.columns)}, c.rows, captured[2], counts)
						return []*Node{gx.AddScalar(st[0], 1), Reshape(x[0], -1), Reshape(x[1], -1)}
					})
				return out[1:]
			})
			args := []any{before[0], before[1], more[0], more[1], c.slot}
			if c.counts != nil {
				args = append(args, c.counts)
			}
			for side, got := range out.MustExec(args...) {
				if got := tensors.MustCopyFlatData[float32](got); !slices.Equal(got, want[side]) {
					t.Errorf("%s, rows on axis %d, %d columns to %v of %v, side %d:\n%v, want\n%v", name, c.rows, c.columns, c.slot, c.counts, side, got, want[side])
				}
			}
			out.Finalize()
		}
	}
}
