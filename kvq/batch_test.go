package kvq_test

import (
	"fmt"
	"testing"

	. "github.com/gomlx/gomlx/core/graph"
	"github.com/kvqbook/kvqbook/internal/oracle"
	. "github.com/kvqbook/kvqbook/kvq"
)

// checkRowsAlone runs a row of the padded batch in a cache of its own, without padding: its codes
// are those it has in the batch, bit for bit.
func checkRowsAlone(t *testing.T, r *recording) {
	const row = 2
	alone := newSession(t, r.plan, r.in.pick(true, row))
	alone.on = r.on
	var err error
	if alone.plan, err = r.plan.WithBatch(1); err != nil {
		t.Fatal(err)
	}
	alone.prompt(41 - r.in.start[row])
	for _, m := range r.moments {
		for alone.slots < m.slots-r.in.start[row] {
			alone.step(1)
		}
		if m.slots%9 != 0 && m.slots != r.slots {
			continue
		}
		for layer, held := range alone.held() {
			requireSameTokens(t, fmt.Sprintf("slot %d, layer %d", m.slots, layer), m.held[layer][row], held[0])
		}
	}
}

// checkPermuted runs the batch with its rows in another order.
func checkPermuted(t *testing.T, r *recording) {
	order := []int{2, 0, 1}
	s := r.session.fork()
	s.t, s.in = t, r.in.pick(false, order...)
	s.prompt(41)
	for s.slots < r.slots {
		s.step(1)
	}
	last := r.moments[len(r.moments)-1].held
	for layer, rows := range s.held() {
		for row, from := range order {
			requireSameTokens(t, fmt.Sprintf("layer %d, row %d, which was row %d", layer, row, from), rows[row], last[layer][from])
		}
		for row, from := range order {
			for head := range s.in.heads {
				if e := worstOf(s.out[layer].Row(row, head, 0), r.out[layer].Row(from, head, 0)); e > r.tolerance() {
					t.Errorf("layer %d, row %d, which was row %d: answers differ by %.2g", layer, row, from, e)
				}
			}
		}
	}
}

// checkChunks brings the same tokens in one call, in chunks and one by one. Where the first call is
// a prompt that differs from others, what follows it may come in any way: transformers' policy
// codes it whole, and feedback learns from its queries.
func checkChunks(t *testing.T, r *recording) {
	single := r.session.fork()
	single.t = t
	wholePrompt := r.config.Quantized() && r.config.Backend != Blocks
	if !wholePrompt && r.config.FeedbackKey == NoFeedback {
		single.empty()
	} else {
		single.prompt(9) // shorter than the padding of one row, which has no token yet
	}
	chunked := single.fork()
	for single.slots < 41 {
		single.step(1)
	}
	if wholePrompt {
		requireOwnClock(t, r, single)
	}
	if chunked.slots == 0 {
		chunked.prompt(9)
		oneCall := r.session.fork()
		oneCall.t = t
		oneCall.prompt(41)
		oneCall.step(1)
		next := single.fork() // what the window gives up leaves it when the next token comes
		next.step(1)
		requireSameCache(t, "one call against one by one", oneCall, next)
	}
	for chunked.slots < 41 {
		before := chunked.held()
		chunked.step(16)
		for layer, got := range chunked.out { // a chunk sees what was held, and itself exactly
			if worst, at := worstAttention(chunked, 16, got, chunked.expected(layer, 16, before[layer])); worst > r.tolerance() {
				t.Errorf("chunk up to slot %d, layer %d: attention is off by %.2g at %s", chunked.slots, layer, worst, at)
			}
		}
	}
	requireSameCache(t, "chunks against one by one", chunked, single)
	for range 60 { // and they go on alike
		single.step(1)
		chunked.step(1)
	}
	requireSameCache(t, "60 steps after chunks against 60 steps after single ones", chunked, single)
}

// requireOwnClock looks at the row that was all padding in the first call: its window is flushed by
// the count of its own tokens.
func requireOwnClock(t *testing.T, r *recording, s *session) {
	t.Helper()
	const row = 2
	line := r.line(oracle.Coder{Group: 1, Quantize: func(x []float32) []float32 { return x }})
	tokens := headOf(s.in.rows[row].keys[0], 0)[:s.slots-s.in.start[row]]
	for _, token := range tokens[:len(tokens)-1] { // the newest has not flushed anything yet
		line.Step(token)
	}
	coded := 0
	for _, tok := range s.held()[0][row] {
		if tok.place == inCodes {
			coded++
		}
	}
	if coded != line.Coded() {
		t.Errorf("%d tokens are coded in the row that began in the second call, wanted %d", coded, line.Coded())
	}
}

// checkWhile runs steps inside a While of one graph: the same cache and the same answers as in
// separate calls.
func checkWhile(t *testing.T, r *recording) {
	s := r.session.fork()
	s.t = t
	s.prompt(41)
	s.loop(r.slots - 41)
	last := r.moments[len(r.moments)-1].held
	for layer, rows := range s.held() {
		for row := range rows {
			requireSameTokens(t, fmt.Sprintf("layer %d, row %d", layer, row), rows[row], last[layer][row])
		}
		if worst, at := worstAttention(s, 1, s.out[layer], r.out[layer]); worst > r.tolerance() {
			t.Errorf("layer %d: the last answers differ by %.2g at %s", layer, worst, at)
		}
	}
}

// checkPaths attends in the forms that Auto does not take: by graph operations over words, where
// these are possible, and tile by tile.
func checkPaths(t *testing.T, r *recording) {
	auto, _ := r.plan.Form(r.backend(), 1)
	for _, form := range []Form{Words, Tiles} {
		plan := r.plan.WithForm(form)
		if got, _ := plan.Form(r.backend(), 1); got != form || got == auto {
			continue
		}
		s := r.session.fork()
		s.t, s.plan, s.graphs = t, plan, map[string]*Exec{}
		for range 2 {
			s.step(1)
			held := s.held()
			for layer, got := range s.out {
				if worst, at := worstAttention(s, 1, got, s.expected(layer, 1, held[layer])); worst > r.tolerance() {
					t.Errorf("%s, slot %d, layer %d: attention is off by %.2g at %s", form, s.slots, layer, worst, at)
				}
			}
		}
	}
}
