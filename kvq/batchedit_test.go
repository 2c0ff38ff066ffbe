package kvq_test

import (
	"context"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/kvqbook/kvqbook/internal/testbackend"
	. "github.com/kvqbook/kvqbook/kvq"
)

// newBatch is a batch of layersDecoder on the pure-Go backend.
func newBatch(t *testing.T, config Config, rows, capacity int) *Batch {
	t.Helper()
	shape := decoderPlan(t, config, rows, capacity).Shape()
	shape.OwnLengths = true
	b, err := NewBatch(testbackend.Go(t), decoderStore(), newPlan(t, config, shape), layersDecoder)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Finalize)
	return b
}

// goOn makes n more tokens of each row, after newest.
func goOn(t *testing.T, b *Batch, newest []int32, n int) [][]int32 {
	t.Helper()
	made, _, err := b.Generate(context.Background(), newest, Generation{MaxTokens: n})
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// Rows that were reordered, forked, or saved and loaded go on as those they come from, whatever
// became of these.
func TestBatchEdits(t *testing.T) {
	const more = 30
	for name, config := range classroomCaches() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := context.Background()
			b := newBatch(t, config, 3, 32)
			var newest []int32
			for row, r := range makeRequests(3, 20) {
				tokens, start := PadLeft([][]int32{r.prompt}, 0)
				out, err := b.Insert(ctx, []int{row}, start, tokens)
				if err != nil {
					t.Fatal(err)
				}
				newest = append(newest, mostLikely(t, out[0])[0])
			}
			for row, tokens := range goOn(t, b, newest, 8) {
				newest[row] = tokens[7]
			}
			lengths := []int{b.Length(0), b.Length(1), b.Length(2)}
			if slices.Max(lengths) == slices.Min(lengths) {
				t.Fatalf("rows of %v tokens, want different ones", lengths)
			}
			path := filepath.Join(t.TempDir(), "batch")
			if err := b.Save(path); err != nil {
				t.Fatal(err)
			}
			must := func(f *Batch, err error) *Batch {
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(f.Finalize)
				return f
			}
			edited := []struct {
				name  string
				batch *Batch
				rows  []int
			}{
				{"fork", must(b.Fork(ctx)), []int{0, 1, 2}},
				{"reordered", must(b.Fork(ctx)), []int{2, 0, 0}},
				{"fork of rows", must(b.Fork(ctx, 1, 1, 2, 0)), []int{1, 1, 2, 0}},
				{"loaded", newBatch(t, config, 3, 16), []int{0, 1, 2}},
				{"loaded over others", must(b.Fork(ctx)), []int{0, 1, 2}},
			}
			want := goOn(t, b, newest, more)
			t.Run("rested", func(t *testing.T) { requireRest(t, must(edited[0].batch.Fork(ctx)), newest, want) })
			t.Run("cropped", func(t *testing.T) { requireCrop(t, must(edited[0].batch.Fork(ctx)), newest, want) })
			if err := edited[1].batch.Reorder(ctx, edited[1].rows); err != nil {
				t.Fatal(err)
			}
			goOn(t, edited[4].batch, []int32{5, -1, 7}, 3)
			for _, e := range edited[3:] {
				if err := e.batch.Load(path); err != nil {
					t.Fatal(err)
				}
			}
			for _, e := range edited {
				var last []int32
				for row, from := range e.rows {
					last = append(last, newest[from])
					if n := e.batch.Length(row); n != lengths[from] {
						t.Errorf("%s: row %d has %d tokens, want the %d of row %d", e.name, row, n, lengths[from], from)
					}
				}
				for row, got := range goOn(t, e.batch, last, more) {
					if from := e.rows[row]; !slices.Equal(got, want[from]) {
						t.Errorf("%s: row %d goes on with %v, row %d did with %v", e.name, row, got, from, want[from])
					}
				}
			}
		})
	}
}

// requireRest lets one row rest while the others go on; then it goes on alone.
func requireRest(t *testing.T, b *Batch, newest []int32, want [][]int32) {
	resting := slices.Clone(newest)
	resting[1] = -1
	length := b.Length(1)
	if made := goOn(t, b, resting, len(want[0])); len(made[1]) > 0 || b.Length(1) != length || !slices.Equal(made[0], want[0]) || !slices.Equal(made[2], want[2]) {
		t.Errorf("row 1 of %d tokens rests and has %d, the others go on with %v, want those of %v", length, b.Length(1), made, want)
	}
	if made := goOn(t, b, []int32{-1, newest[1], -1}, len(want[1])); !slices.Equal(made[1], want[1]) {
		t.Errorf("a row that rested goes on with %v, want %v", made[1], want[1])
	}
}

// requireCrop makes tokens, forgets them and makes them again. They are few, so that nothing is
// coded from them.
func requireCrop(t *testing.T, b *Batch, newest []int32, want [][]int32) {
	lengths := []int{b.Length(0), b.Length(1), b.Length(2)}
	goOn(t, b, newest, 2)
	if err := b.Crop(context.Background(), []int{2, 0, 2}); err != nil {
		t.Fatal(err)
	}
	if b.Length(0) != lengths[0] || b.Length(1) != lengths[1]+2 || b.Length(2) != lengths[2] {
		t.Errorf("rows of %d, %d and %d tokens, want %v and two more in row 1", b.Length(0), b.Length(1), b.Length(2), lengths)
	}
	made := goOn(t, b, []int32{newest[0], want[1][1], newest[2]}, 4)
	if want := [][]int32{want[0][:4], want[1][2:6], want[2][:4]}; !slices.EqualFunc(made, want, slices.Equal[[]int32]) {
		t.Errorf("after a crop: %v, want %v", made, want)
	}
}

// A step of one token grows a full cache.
func TestBatchStepGrows(t *testing.T) {
	ctx := context.Background()
	b := newBatch(t, Config{}, 2, 4)
	if _, err := b.Insert(ctx, []int{1}, nil, [][]int32{{1, 2, 3, 4}}); err != nil {
		t.Fatal(err)
	}
	out, err := b.Step(ctx, []int{0, 1}, [][]int32{{0}, {5}})
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range lastRows(t, out[0])[1] {
		if x != x {
			t.Fatal("the logits are no numbers")
		}
	}
	if b.Plan().Shape().Capacity != 8 || b.Length(1) != 5 {
		t.Errorf("%d tokens in room for %d, want 5 in 8", b.Length(1), b.Plan().Shape().Capacity)
	}
}

// What a row held before it was emptied does not come back, infinities included: 0 times one of
// them is not 0.
func TestResetClears(t *testing.T) {
	for name, config := range classroomCaches() {
		t.Run(name, func(t *testing.T) {
			plan := newPlan(t, config, Shape{Layers: 1, Batch: 2, KVHeads: 1, HeadDim: 16, Capacity: 64, DType: dtypes.Float32, OwnLengths: true})
			exec := MustNewExec(testbackend.Go(t), func(x *Node) *Node {
				g := x.Graph()
				step := func(c Cache, x *Node) *Node {
					c.Layer(0).Append(x, x)
					out := c.Layer(0).Attend(x)
					c.Advance()
					return out
				}
				c := plan.From(plan.Init(Zeros(g, shapes.Make(dtypes.Int32, 2))).Nodes())
				for range 3 {
					step(c, x)
				}
				c.Reset(Const(g, []bool{true, false}))
				return step(c, OnesLike(x))
			})
			x := make([][][][]float32, 2)
			for row, v := range []float32{float32(math.Inf(1)), 2} {
				x[row] = [][][]float32{{slices.Repeat([]float32{v}, 16)}}
			}
			out, err := exec.Exec1(x)
			if err != nil {
				t.Fatal(err)
			}
			// A row of one token answers with its value.
			for i, v := range out.Value().([][][][]float32)[0][0][0] {
				if v != 1 {
					t.Errorf("element %d of the row that was emptied is %v, want 1", i, v)
				}
			}
		})
	}
}

// Wrong edits are errors of one line, and leave the batch as it is.
func TestBatchEditsRefuse(t *testing.T) {
	ctx := context.Background()
	b := newBatch(t, Config{}, 2, 16)
	dir := t.TempDir()
	file := func(name string, shape Shape, start []int32) string {
		plan := newPlan(t, Config{}, shape)
		exec := MustNewExec(testbackend.Go(t), func(start *Node) []*Node {
			return plan.From(plan.Init(start).Nodes()).Nodes()
		})
		state, err := exec.Exec(start)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, name)
		if err := Save(path, plan, state); err != nil {
			t.Fatal(err)
		}
		return path
	}
	own := b.Plan().Shape()
	together, larger := own, own
	together.OwnLengths, larger.Batch = false, 3
	for _, c := range []struct {
		want string
		do   func() error
	}{
		{"kvq.Batch.Save: the batch is empty", func() error { return b.Save(filepath.Join(dir, "empty")) }},
		{"kvq.Batch.Reorder: 1 rows, the batch has 2", func() error { return b.Reorder(ctx, []int{0}) }},
		{"kvq.Batch.Reorder: row 2, want 0 to 1", func() error { return b.Reorder(ctx, []int{0, 2}) }},
		{"kvq.Batch.Fork: row -1, want 0 to 1", func() error { _, err := b.Fork(ctx, -1); return err }},
		{"begins with padding of 2 tokens", func() error { return b.Load(file("padded", own, []int32{0, 2})) }},
		{"holds another cache: Shape.OwnLengths false, want true", func() error { return b.Load(file("together", together, []int32{0, 0})) }},
		{"holds another cache: Shape.Batch 3, want 2", func() error { return b.Load(file("larger", larger, []int32{0, 0, 0})) }},
		{"finalized", func() error { b.Finalize(); return b.Load(filepath.Join(dir, "padded")) }},
		{"finalized", func() error { _, err := b.Fork(ctx); return err }},
	} {
		if err := c.do(); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("got %v, want one line with %q", err, c.want)
		}
	}
}
