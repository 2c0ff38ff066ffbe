package kvq_test

import (
	"fmt"
	"math"
	"testing"

	. "github.com/gomlx/gomlx/core/graph"
	"github.com/kvqbook/kvqbook/internal/oracle"
	. "github.com/kvqbook/kvqbook/kvq"
)

// requireSameTokens fails where two rows of two caches do not hold the same tokens, bit for bit, in
// the same kind of place.
func requireSameTokens(t *testing.T, what string, got, want map[int]*heldToken) {
	t.Helper()
	requireSamePlaces(t, what, got, want)
	for i, w := range want {
		switch g := got[i]; {
		case g.raw != w.raw:
			t.Fatalf("%s: token %d has other codes", what, i)
		case fmt.Sprint(g.keys, g.values) != fmt.Sprint(w.keys, w.values):
			t.Fatalf("%s: token %d has other values", what, i)
		}
	}
}

func requireSamePlaces(t *testing.T, what string, got, want map[int]*heldToken) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: %d tokens held, wanted %d", what, len(got), len(want))
	}
	for i, w := range want {
		g := got[i]
		switch {
		case g == nil:
			t.Fatalf("%s: token %d is lost", what, i)
		case g.place != w.place:
			t.Fatalf("%s: token %d is held in %c, wanted %c", what, i, g.place, w.place)
		}
	}
}

func requireSameCache(t *testing.T, what string, got, want *session) {
	t.Helper()
	w := want.held()
	for layer, rows := range got.held() {
		for row := range rows {
			requireSameTokens(t, fmt.Sprintf("%s, layer %d, row %d", what, layer, row), rows[row], w[layer][row])
		}
	}
}

// requireStep plays n more steps and compares each attention with the oracle's over what the cache
// holds, and with a model that has no cache at all: not farther from it than near.
func (c suiteCase) requireSteps(t *testing.T, what string, s *session, n int, near float64) {
	t.Helper()
	for range n {
		s.step(1)
		held := s.held()
		for layer, got := range s.out {
			if worst, at := worstAttention(s, 1, got, s.expected(layer, 1, held[layer])); worst > c.tolerance() {
				t.Fatalf("%s, then slot %d, layer %d: attention is off by %.2g at %s", what, s.slots, layer, worst, at)
			}
			if far := distance(s, got, s.uncached(layer, 1)); far > near {
				t.Errorf("%s, then slot %d, layer %d: %.3g from a model without a cache, wanted at most %.3g", what, s.slots, layer, far, near)
			}
		}
	}
}

// distance is the root mean square of the difference over the newest token's outputs, as a part of
// the outputs' size.
func distance(s *session, got, want oracle.Tensor) float64 {
	wrong, size := 0.0, 0.0
	for b, start := range s.in.start {
		if s.slots <= start {
			continue
		}
		for head := range s.in.heads {
			for d, x := range got.Row(b, head, 0) {
				w := want.Row(b, head, 0)[d]
				wrong, size = wrong+(x-w)*(x-w), size+w*w
			}
		}
	}
	return math.Sqrt(wrong / max(size, 1e-30))
}

// nearness is how far from a model without a cache a kind of cache may be on the suite's random
// data.
func (r *recording) nearness() float64 {
	if !r.config.Quantized() {
		return 1e-5
	}
	for _, l := range r.plan.Inside().Layers {
		if l.Key.Bits < 4 || l.Value.Bits < 4 {
			return 0.35
		}
	}
	return 0.2
}

// changed is other data from a slot on: what comes after a rollback.
func (in *inputs) changed(seed uint64, from int, s Shape) *inputs {
	other := makeInputs(seed, s, in.heads, suiteCapacity, in.start...)
	for row := range other.rows {
		keep := max(0, from-in.start[row])
		for layer := range s.Layers {
			copy(other.rows[row].queries[layer][:keep], in.rows[row].queries[layer])
			copy(other.rows[row].keys[layer][:keep], in.rows[row].keys[layer])
			copy(other.rows[row].values[layer][:keep], in.rows[row].values[layer])
		}
	}
	return other
}

// checkCrop forgets n tokens, within the window and deep into codes, and goes on with other tokens.
func checkCrop(t *testing.T, r *recording) {
	for _, n := range []int{1, 7, 33, r.slots - 10} {
		t.Run(fmt.Sprintf("%d tokens", n), func(t *testing.T) {
			s := r.session.fork()
			s.t = t
			before := s.held()
			s.crop(n)
			for layer, rows := range s.held() {
				for row, held := range rows {
					left := max(0, s.slots-s.in.start[row])
					for i := range before[layer][row] {
						if i >= left {
							delete(before[layer][row], i)
						}
					}
					requireReopened(t, s.plan, held, before[layer][row])
					requireSameTokens(t, fmt.Sprintf("layer %d, row %d", layer, row), held, before[layer][row])
				}
			}
			s.in = s.in.changed(uint64(100+n), s.slots, s.plan.Shape())
			r.requireSteps(t, "crop", s, 45, r.nearness())
		})
	}
}

// requireReopened looks at the tokens that a crop took out of codes: they are what is left of one
// group along tokens, back in the window with the values that their codes stood for. It strikes
// them off both lists.
func requireReopened(t *testing.T, p *Plan, held, before map[int]*heldToken) {
	t.Helper()
	reopened := 0
	for i, tok := range before {
		if tok.place != inCodes || held[i] == nil || held[i].place != inWindow {
			continue
		}
		reopened++
		for head := range tok.keys {
			for _, pair := range [][2][]float64{{held[i].keys[head], tok.keys[head]}, {held[i].values[head], tok.values[head]}} {
				if e := worstOf(pair[0], pair[1]); e > 1e-5 { // decoded and turned back in float32
					t.Errorf("token %d came back into the window changed by %.2g", i, e)
				}
			}
		}
		delete(held, i)
		delete(before, i)
	}
	if reopened >= max(p.Inside().Unit, 1) || reopened > 0 && p.Inside().Unit == 1 {
		t.Errorf("%d tokens came back from codes, groups have %d", reopened, p.Inside().Unit)
	}
}

// checkCropAgain rolls back a few tokens many times over, as speculative decoding does: nothing
// leaks, and no room is lost.
func checkCropAgain(t *testing.T, r *recording) {
	s := r.session.fork()
	s.t = t
	for i := range 20 {
		for range 5 {
			s.step(1)
		}
		s.crop(4)
		s.in = s.in.changed(uint64(200+i), s.slots, s.plan.Shape())
	}
	r.requireSteps(t, "twenty crops", s, 2, r.nearness())
	// the window gives only whole blocks, and the crops stayed inside it
	if r.config.Backend == Blocks && r.config.ResidualLength >= 4 {
		r.session.t = t
		plain := r.session.fork()
		plain.in = s.in
		for plain.slots < s.slots {
			plain.step(1)
		}
		requireSameCache(t, "twenty crops inside the window", s, plain)
	}
}

func checkReorder(t *testing.T, r *recording) {
	s := r.session.fork()
	s.t = t
	before, rows := s.held(), []int{2, 0, 0}
	s.reorder(2, 0, 0)
	s.in = s.in.pick(false, rows...)
	for layer, held := range s.held() {
		for row, from := range rows {
			requireSameTokens(t, fmt.Sprintf("layer %d, row %d out of %d", layer, row, from), held[row], before[layer][from])
		}
	}
	// The two copies part: each goes on with tokens of its own.
	s.in = s.in.changed(300, s.slots, s.plan.Shape())
	r.requireSteps(t, "reorder", s, 40, r.nearness())
}

// checkRepeat prefills one prompt and repeats it over a batch of three.
func checkRepeat(t *testing.T, r *recording) {
	one := r.session.fork()
	one.t, one.in, one.graphs = t, r.in.pick(false, 1), map[string]*Exec{}
	var err error
	if one.plan, err = r.plan.WithBatch(1); err != nil {
		t.Fatal(err)
	}
	one.prompt(41)
	many := r.session.fork()
	many.t, many.slots = t, 41
	many.state = one.run("repeat", func(state, args []*Node) []*Node {
		return one.plan.TakeRows(many.plan, state, args[0])
	}, one.state, []int32{0, 0, 0})
	many.in = r.in.pick(false, 1, 1, 1).changed(400, 41, many.plan.Shape())
	want := one.held()
	for layer, rows := range many.held() {
		for row := range rows {
			requireSameTokens(t, fmt.Sprintf("layer %d, row %d", layer, row), rows[row], want[layer][0])
		}
	}
	r.requireSteps(t, "repeat", many, 45, r.nearness())
	requireMeasured(t, many)
}

// checkReset starts anew after a long run: by Init, and by forgetting everything.
func checkReset(t *testing.T, r *recording) {
	again := r.session.fork()
	again.t = t
	again.prompt(41)
	requireSameRows(t, "prompt after reset", again.held(), r.moments[0].held)
	r.requireSteps(t, "reset", again, 3, r.nearness())

	empty := r.session.fork()
	empty.t = t
	empty.crop(empty.slots)
	if n := len(empty.held()[0][0]); n != 0 {
		t.Errorf("%d tokens are left after everything was forgotten", n)
	}
	r.requireSteps(t, "everything forgotten", empty, 20, r.nearness())
}

func requireSameRows(t *testing.T, what string, got, want [][]map[int]*heldToken) {
	t.Helper()
	for layer := range want {
		for row := range want[layer] {
			requireSameTokens(t, fmt.Sprintf("%s, layer %d, row %d", what, layer, row), got[layer][row], want[layer][row])
		}
	}
}

// checkGrow moves a cache into a larger one and fills that.
func checkGrow(t *testing.T, r *recording) {
	s := r.session.fork()
	s.t, s.graphs = t, map[string]*Exec{}
	before := s.held()
	larger, err := s.plan.WithCapacity(suiteCapacity + 70)
	if err != nil {
		t.Fatal(err)
	}
	s.state = s.run("grow", func(state, _ []*Node) []*Node { return s.plan.Grow(larger, state) }, s.state)
	s.plan = larger
	requireSameRows(t, "grown", s.held(), before)
	requireMeasured(t, s)
	r.requireSteps(t, "grow", s, 35, r.nearness())
}

func requireMeasured(t *testing.T, s *session) {
	t.Helper()
	if measured, err := Measure(s.plan, s.state); err != nil || measured != s.plan.Memory() {
		t.Errorf("measured %+v (error %v), predicted %+v", measured, err, s.plan.Memory())
	}
}
