package kvq_test

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"

	"github.com/gomlx/compute"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/internal/oracle"
	"github.com/kvqbook/kvqbook/internal/testbackend"
	"github.com/kvqbook/kvqbook/internal/testlane"
	. "github.com/kvqbook/kvqbook/kvq"
)

const raggedRows = 3

// raggedChunks are the tokens that a row may have in a step of several columns, the most of them
// first: each is a graph for a row alone.
var raggedChunks = []int{6, 2}

// ragged plays a batch whose rows come, go, rest and are cut, and beside it each row alone in a
// cache of its own whose rows grow together. After every move each row holds what it holds alone,
// bit for bit, and answers as it does alone, and as the oracle says.
type ragged struct {
	suiteCase
	t       *testing.T
	rng     *rand.Rand
	batch   *session   // the batch; of its inputs only shapes and dtypes count
	prompts *session   // prefills of two rows
	alone   []*session // each row alone
	one     *session   // the graphs of rows alone
	texts   uint64     // made so far
	// slots of a row: games with fewer of them often come to the last one
	capacity      int
	promptColumns int   // of a prefill
	lengths       []int // that a prompt may have: each is a graph of its own for a row alone
}

func newRagged(t *testing.T, c suiteCase, on compute.Backend, seed uint64) *ragged {
	r := &ragged{suiteCase: c, t: t, rng: rand.New(rand.NewPCG(seed, 5)), capacity: 120, promptColumns: 44, lengths: []int{44, 9, 37}}
	switch {
	case !c.config.Quantized():
		r.capacity = 64
	case newPlan(t, c.fitted(), c.shape(1, 200)).Inside().Block == 64: // more tokens until one is coded
		r.capacity, r.promptColumns, r.lengths = 160, 90, []int{90, 9, 75}
	}
	shape := c.shape(raggedRows, r.capacity)
	shape.OwnLengths = true
	of := func(change func(s *Shape)) *session {
		s := shape
		change(&s)
		session := newSession(t, newPlan(t, c.fitted(), s), makeInputs(seed, s, suiteHeads, 1, make([]int, s.Batch)...))
		session.on = on
		return session
	}
	r.batch = of(func(*Shape) {})
	// a prefill's rows may grow together or not, and need less room
	r.prompts = of(func(s *Shape) { s.Batch, s.Capacity, s.OwnLengths = 2, r.promptColumns+int(seed%2)*20, seed%3 == 0 })
	r.one = of(func(s *Shape) { s.Batch, s.OwnLengths = 1, false })
	for range raggedRows {
		r.alone = append(r.alone, r.newText())
	}
	r.batch.state = r.batch.run("empty", func(_, args []*Node) []*Node { return r.batch.plan.Init(args[0]).Nodes() }, nil, make([]int32, raggedRows))
	return r
}

// newText is a row alone, empty, with tokens of its own.
func (r *ragged) newText() *session {
	r.texts++
	s := r.one.fork()
	s.in = makeInputs(1000+r.texts, s.plan.Shape(), suiteHeads, r.capacity, 0)
	s.empty()
	return s
}

// columns are queries, keys and values of a step of t columns: the next tokens of each row, as many
// as counts says, at the end, and padding that must not matter before them.
func (r *ragged) columns(t int, counts []int32) []any {
	in := *r.batch.in
	in.rows, in.start = nil, nil
	for row, s := range r.alone {
		data, from, n := rowData{}, s.slots, int(counts[row])
		cut := func(layers [][][][]float32) (out [][][][]float32) {
			for _, tokens := range layers {
				out = append(out, tokens[from:from+n])
			}
			return out
		}
		data.queries, data.keys, data.values = cut(s.in.rows[0].queries), cut(s.in.rows[0].keys), cut(s.in.rows[0].values)
		in.rows, in.start = append(in.rows, data), append(in.start, t-n)
	}
	return in.tensors(0, t)
}

// step brings each row that counts says its next tokens. counts is int32, or bool for all or none.
func (r *ragged) step(t int, counts []int32, asBool bool) {
	var arg any = counts
	if asBool {
		active := make([]bool, len(counts))
		for i, n := range counts {
			active[i] = n > 0
		}
		arg = active
	}
	r.batch.take(r.batch.run(fmt.Sprint("step ", asBool), func(state, args []*Node) []*Node {
		c := r.batch.plan.From(state)
		c.NewTokens(args[0])
		return attendAll(c, args[1:])
	}, r.batch.state, append([]any{arg}, r.columns(t, counts)...)...))
	for row, n := range counts {
		if n > 0 {
			r.alone[row].step(int(n))
		}
	}
	for layer, out := range r.batch.out {
		for row, n := range counts {
			s := r.alone[row]
			if n == 0 {
				continue
			}
			got := tail(out, row, t, int(n))
			if worst, at := worstAttention(s, int(n), got, s.out[layer]); worst > r.tolerance() {
				r.t.Fatalf("row %d of %d tokens, layer %d: attention is %.2g from the row's alone at %s", row, s.slots, layer, worst, at)
			}
		}
	}
}

// tail is one row's last n of t columns of [B, H, t, D].
func tail(x oracle.Tensor, row, t, n int) oracle.Tensor {
	out := oracle.NewTensor(1, x.Shape[1], n, x.Shape[3])
	for head := range x.Shape[1] {
		for i := range n {
			copy(out.Row(0, head, i), x.Row(row, head, t-n+i))
		}
	}
	return out
}

// requireOracle compares the answers of the last step of single tokens with the oracle's over what
// each row holds.
func (r *ragged) requireOracle(counts []int32) {
	for row, n := range counts {
		if n != 1 {
			continue
		}
		s := r.alone[row]
		held := s.held()
		for layer, out := range r.batch.out {
			if worst, at := worstAttention(s, 1, tail(out, row, 1, 1), s.expected(layer, 1, held[layer])); worst > r.tolerance() {
				r.t.Fatalf("row %d of %d tokens, layer %d: attention is %.2g from the oracle's at %s", row, s.slots, layer, worst, at)
			}
		}
	}
}

// insert prefills two new texts, padded on the left, and puts them in the place of rows; -1: of
// none.
func (r *ragged) insert(rows ...int32) {
	p := r.prompts.fork()
	in := *p.in
	in.rows, in.start = nil, nil
	for _, row := range rows {
		s := r.newText()
		n := r.lengths[r.rng.IntN(len(r.lengths))]
		in.rows, in.start = append(in.rows, s.in.rows[0]), append(in.start, r.promptColumns-n)
		if row >= 0 && row < raggedRows {
			s.prompt(n)
			r.alone[row] = s
		}
	}
	p.in = &in
	p.prompt(r.promptColumns)
	r.batch.state = r.batch.run("insert", func(state, args []*Node) []*Node {
		c := r.batch.plan.From(state)
		c.Insert(args[0], p.plan.From(args[1:]))
		return c.Nodes()
	}, r.batch.state, append([]any{rows}, anyOf(p.state)...)...)
}

func anyOf(state []*tensors.Tensor) (out []any) {
	for _, x := range state {
		out = append(out, x)
	}
	return out
}

func (r *ragged) reset(rows ...bool) {
	r.batch.edit("reset", rows, func(c Cache, rows *Node) { c.Reset(rows) })
	for row, empty := range rows {
		if empty {
			r.alone[row] = r.newText()
		}
	}
}

func (r *ragged) crop(n ...int32) {
	r.batch.edit("crop", n, func(c Cache, n *Node) { c.Crop(n) })
	for row, n := range n {
		if s := r.alone[row]; n > 0 {
			s.crop(int(n))
			r.texts++
			s.in = s.in.changed(5000+r.texts, s.slots, s.plan.Shape())
		}
	}
}

func (r *ragged) reorder(rows ...int32) {
	r.batch.reorder(rows...)
	before := r.alone
	r.alone = nil
	for _, from := range rows {
		s := before[from].fork()
		r.texts++ // the copies part
		s.in = s.in.changed(5000+r.texts, s.slots, s.plan.Shape())
		r.alone = append(r.alone, s)
	}
}

func (r *ragged) file() {
	path := filepath.Join(r.t.TempDir(), "cache")
	if err := Save(path, r.batch.plan, r.batch.state); err != nil {
		r.t.Fatal(err)
	}
	plan, state, err := Load(path)
	if err != nil {
		r.t.Fatal(err)
	}
	if !plan.Shape().Equal(r.batch.plan.Shape()) {
		r.t.Fatalf("loaded %+v, saved %+v", plan.Shape(), r.batch.plan.Shape())
	}
	r.batch.state = state
}

// requireSame compares each row with the row alone, bit by bit. hqq's search stops by an average,
// whose last bit depends on the number of rows that a prompt was read with: there it compares where
// tokens lie.
func (r *ragged) requireSame(what string) {
	h := r.batch.host()
	for row, s := range r.alone {
		if got := h.length(row) - h.start(row); got != s.slots {
			r.t.Fatalf("%s: row %d has %d tokens, wanted %d", what, row, got, s.slots)
		}
		alone := s.host()
		for layer := range s.plan.Shape().Layers {
			require := requireSameTokens
			if c := s.plan.Config(); c.Backend == HQQ || c.QuantizerKey == HalfQuadratic {
				require = requireSamePlaces
			}
			require(r.t, fmt.Sprintf("%s, row %d of %d tokens, layer %d", what, row, s.slots, layer),
				h.tokens(r.t, layer, row), alone.tokens(r.t, layer, 0))
		}
	}
}

// move makes one move by chance and says which.
func (r *ragged) move() string {
	pick := func(f func(row int) int32) []int32 {
		var out []int32
		for row := range r.alone {
			out = append(out, f(row))
		}
		return out
	}
	room := func(row, n int) bool { return r.alone[row].slots+n <= r.capacity }
	switch n := r.rng.IntN(20); n {
	case 0, 1:
		places := []int32{-1, 7, 0, 1, 2}
		r.rng.Shuffle(len(places), func(i, j int) { places[i], places[j] = places[j], places[i] })
		r.insert(places[:2]...)
		return fmt.Sprint("insert ", places[:2])
	case 2:
		rows := []bool{r.rng.IntN(3) == 0, r.rng.IntN(3) == 0, r.rng.IntN(3) == 0}
		r.reset(rows...)
		return fmt.Sprint("reset ", rows)
	case 3, 4:
		most, nearly := []int{4, 60}[r.rng.IntN(2)], r.rng.IntN(3) == 0
		cut := pick(func(row int) int32 {
			if n := r.alone[row].slots; nearly { // all but a few, so that sinks go too
				return int32(n - r.rng.IntN(min(4, n)+1))
			}
			return int32(r.rng.IntN(min(most, r.alone[row].slots) + 1))
		})
		r.crop(cut...)
		return fmt.Sprint("crop ", cut)
	case 5:
		rows := pick(func(int) int32 { return int32(r.rng.IntN(raggedRows)) })
		r.reorder(rows...)
		return fmt.Sprint("reorder ", rows)
	case 6, 7, 8:
		t := raggedChunks[0]
		counts := pick(func(row int) int32 {
			n := append([]int{0}, raggedChunks...)[r.rng.IntN(1+len(raggedChunks))]
			if !room(row, n) {
				n = 0
			}
			return int32(n)
		})
		r.step(t, counts, false)
		return fmt.Sprintf("chunk of %d: %v", t, counts)
	case 9:
		r.file()
		return "save and load"
	}
	// steps: the same rows rest for a while, so that others overtake them
	resting := r.rng.IntN(1 << raggedRows)
	var counts []int32
	steps, asBool := 1+r.rng.IntN(12), r.rng.IntN(2) == 0
	for range steps {
		counts = pick(func(row int) int32 {
			if resting>>row&1 == 1 || !room(row, 1) {
				return 0
			}
			return 1
		})
		r.step(1, counts, asBool)
	}
	r.requireOracle(counts)
	return fmt.Sprintf("%d steps, the last of %v", steps, counts)
}

// play makes moves by chance, and looks after each whether every row holds what it holds alone.
func (r *ragged) play(moves int) {
	most := 0
	for n := range moves {
		last := r.move()
		r.requireSame(fmt.Sprintf("move %d, %s", n, last))
		coded, err := Coded(r.batch.plan, r.batch.state)
		if err != nil {
			r.t.Fatal(err)
		}
		most = max(most, slices.Max(coded))
	}
	if quantized := r.config.Quantized(); (most > 0) != quantized {
		r.t.Errorf("at most %d tokens of a row were in codes, a cache in codes: %t", most, quantized)
	}
}

// TestRagged plays games by chance over every kind of cache.
func TestRagged(t *testing.T) {
	for i, c := range suiteCases(t) {
		t.Run(c.name, func(t *testing.T) {
			testlane.OnlyAll(t, "each case compiles a dozen graphs; TestRaggedOnPureGo plays the same games")
			t.Parallel()
			newRagged(t, c, testbackend.XLA(t), uint64(i)).play(80)
		})
	}
}

// TestRaggedOnPureGo plays them where nothing is compiled.
func TestRaggedOnPureGo(t *testing.T) {
	for i, c := range suiteCases(t) {
		t.Run(c.name, func(t *testing.T) {
			moves := 80
			if !testlane.All() {
				moves = 40
				if !slices.Contains([]string{"full precision", "quanto 4 bit", "blocks 3 bit keys per channel, sinks"}, c.name) {
					testlane.OnlyAll(t, "one cache of every policy, with sinks and without, is enough for a quick look")
				}
			}
			t.Parallel()
			newRagged(t, c, testbackend.Go(t), uint64(i)).play(moves)
		})
	}
}

// Chunks end in the last slot: of a row that gets all of their columns, and of one that gets a few.
func TestRaggedLastSlots(t *testing.T) {
	for i, c := range suiteCases(t) {
		if c.name != "full precision" && c.name != "quanto 4 bit" {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRagged(t, c, testbackend.Go(t), uint64(i))
			r.insert(0, 1)
			columns := raggedChunks[0]
			few := raggedChunks[len(raggedChunks)-1]
			for _, left := range []int{columns, few} { // row 0 ends with all columns, row 1 with a few
				row := 0
				if left == few {
					row = 1
				}
				for r.alone[row].slots+left < r.capacity {
					counts := make([]int32, raggedRows)
					counts[row] = 1
					r.step(1, counts, true)
				}
			}
			r.step(columns, []int32{int32(columns), int32(few), 0}, false)
			r.requireSame("a chunk that ends in the last slot")
			if r.alone[0].slots != r.capacity || r.alone[1].slots != r.capacity {
				t.Errorf("rows of %d and %d tokens, want %d", r.alone[0].slots, r.alone[1].slots, r.capacity)
			}
		})
	}
}
