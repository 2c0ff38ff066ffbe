package llama

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/internal/engine"
	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// Generate continues each row of a batch: ids [B][T] are padded on the left where mask [B][T] is 0 (nil: no padding).
// The prompt goes through in one call; then tokens come in blocks. After each block onBlock, if not nil, gets every
// row's own new tokens (none for rows that have ended); an error from it ends the generation.
//
// When ctx ends, or onBlock or the device fails, the Result holds what was generated so far, together with the error.
// Errors of the input come before anything is compiled, with a nil Result; they are [ErrInput].
func (g *Generator) Generate(ctx context.Context, ids [][]tokenizer.Token, mask [][]int32, gc GenerateConfig, onBlock func(tokens [][]tokenizer.Token) error) (*Result, error) {
	run, err := g.newRun(ids, mask, gc, onBlock)
	if err != nil {
		return nil, err
	}
	err = run.all(ctx)
	return run.finish(ctx, err), err
}

// run is one call of Generate.
type run struct {
	g       *Generator
	gc      GenerateConfig
	prompt  *prompt
	limit   int        // tokens wanted, and possible
	stop    StopReason // if limit is reached
	pick    picking
	pace    pace
	onBlock func([][]tokenizer.Token) error

	plan    *kvq.Plan
	cache   *session            // nil before prefill
	rows    [][]tokenizer.Token // new tokens, padding included
	lengths []int               // without padding
	done    []bool
	logits  [][][]float32
	clock   Timing
}

// newRun checks all input.
func (g *Generator) newRun(ids [][]tokenizer.Token, mask [][]int32, gc GenerateConfig, onBlock func([][]tokenizer.Token) error) (*run, error) {
	c := g.model.config
	if err := gc.Validate(c); err != nil {
		return nil, err
	}
	p, err := newPrompt(ids, mask, c)
	if err != nil {
		return nil, err
	}
	if err := checkForced(gc.Forced, len(ids), c); err != nil {
		return nil, err
	}
	r := &run{g: g, gc: gc, onBlock: onBlock, limit: gc.MaxNewTokens, stop: StopLength}
	if gc.Forced != nil {
		r.limit = len(gc.Forced[0])
	}
	// The last new token is never fed, so the first comes free when the prompt fills the context.
	if possible := c.MaxPositions - p.longest + 1; r.limit > possible {
		if gc.Forced != nil {
			return nil, usererr.New("%d forced tokens after a prompt of %d, the model reads at most %d together", r.limit, p.longest, c.MaxPositions)
		}
		r.limit, r.stop = possible, StopContext
	}
	r.prompt = p.resize(engine.PromptColumns(p.length))
	r.rows, r.lengths, r.done = make([][]tokenizer.Token, len(ids)), make([]int, len(ids)), make([]bool, len(ids))
	r.pick = newPicking(gc, c, len(ids))
	r.pace = pace{fixed: gc.BlockSize, most: r.key().block()}
	r.plan, err = g.Plan(len(ids), engine.FirstCapacity(r.prompt.length, r.limit))
	return r, err
}

func (r *run) key() decodeKey {
	return decodeKey{pick: r.pick.kind, forced: r.gc.Forced != nil, keepLogits: r.gc.KeepLogits}
}

// all runs prefill and decode. The graphs they need are compiled at the same time.
func (r *run) all(ctx context.Context) error {
	r.g.startPrefill(r.plan, r.prompt.length)
	if r.gc.Forced == nil {
		r.g.startPick(len(r.rows), r.pick.kind)
	}
	if r.limit > 1 {
		r.g.startDecode(r.plan, r.key())
	}
	if err := r.first(ctx); err != nil {
		return err
	}
	for len(r.rows[0]) < r.limit && slices.Contains(r.done, false) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := r.more(ctx); err != nil {
			return err
		}
	}
	return nil
}

// first takes the prompt in and picks the first token of each row.
func (r *run) first(ctx context.Context) error {
	cache, logits, err := r.g.prefill(ctx, r.plan, r.prompt, &r.clock)
	if err != nil {
		return err
	}
	r.cache = cache
	defer free(logits)
	if r.gc.KeepLogits {
		if err := r.keep(logits, 1); err != nil {
			return err
		}
	}
	tokens := r.forced(1)
	if r.gc.Forced == nil {
		if tokens, err = r.pickFirst(ctx, logits); err != nil {
			return err
		}
	}
	return r.take(tokens, 1)
}

func (r *run) pickFirst(ctx context.Context, logits sharded) ([]tokenizer.Token, error) {
	program := r.g.startPick(len(r.rows), r.pick.kind)
	if err := r.clock.compiling(func() error { return program.Wait(ctx) }); err != nil {
		return nil, err
	}
	inputs := append([]any{logits}, r.pick.inputs(0, 1, 1)...)
	out, err := r.g.programs.run(context.WithoutCancel(ctx), program, inputs...)
	if err != nil {
		return nil, err
	}
	defer free(out...)
	sound, err := read[bool](out[1])
	if err != nil {
		return nil, err
	}
	if err := r.checkNumbers(sound); err != nil {
		return nil, err
	}
	return read[tokenizer.Token](out[0])
}

// checkNumbers refuses to go on from logits that are not numbers, instead of writing nonsense.
func (r *run) checkNumbers(sound []bool) error {
	row := slices.Index(sound, false)
	if row < 0 || r.done[row] {
		return nil
	}
	return fmt.Errorf("the model's logits for row %d are not numbers after %d new tokens: the weights are damaged, or too large for %s (try float32)",
		row, len(r.rows[row]), r.g.model.dtype)
}

// more runs the decode loop once.
func (r *run) more(ctx context.Context) error {
	made, wanted := len(r.rows[0]), r.limit-len(r.rows[0])
	if err := r.makeRoom(ctx, wanted); err != nil {
		return err
	}
	key := r.key()
	n := min(r.pace.next(), wanted, r.cache.room())
	newest := make([]tokenizer.Token, len(r.rows))
	for i, row := range r.rows {
		newest[i] = row[len(row)-1]
	}
	inputs := []any{[]int32{int32(n)}, newest, r.done, []tokenizer.Token{r.padID()}}
	if key.forced {
		inputs = append(inputs, tensors.FromFlatDataAndDimensions(r.forced(key.block()), key.block(), len(r.rows)))
	} else {
		inputs = append(inputs, r.pick.inputs(made, n, key.block())...)
	}
	compiled := r.clock.Compile
	start := time.Now()
	out, err := r.cache.decode(ctx, key, inputs...)
	if err != nil {
		return err
	}
	defer free(out.logits)
	took := time.Since(start) - (r.clock.Compile - compiled)
	r.clock.Decode += took
	r.clock.Steps += out.turns
	r.pace.measured(out.turns, took)
	if err := r.checkNumbers(out.sound); err != nil {
		return err
	}
	if key.keepLogits {
		if err := r.keep(out.logits, out.turns); err != nil {
			return err
		}
	}
	return r.take(out.tokens, out.turns)
}

// makeRoom grows a full cache, and has the graph for the next size compiled before the cache is full.
func (r *run) makeRoom(ctx context.Context, wanted int) error {
	s := r.cache
	if s.room() >= wanted || s.room() > s.capacity()/4 {
		return nil
	}
	larger, err := s.plan.WithCapacity(2 * s.capacity())
	if err != nil {
		return err
	}
	r.g.startDecode(larger, r.key())
	if s.room() > 0 {
		return nil
	}
	return s.grow(ctx, larger.Shape().Capacity)
}

// forced are the next given tokens [n, B]; past their end, zeros.
func (r *run) forced(n int) []tokenizer.Token {
	out := make([]tokenizer.Token, n*len(r.rows))
	for i, row := range r.gc.Forced {
		for j, token := range row[len(r.rows[i]):min(len(row), len(r.rows[i])+n)] {
			out[j*len(r.rows)+i] = token
		}
	}
	return out
}

// take adds new tokens [turns, B] to the rows and shows them to the callback.
func (r *run) take(tokens []tokenizer.Token, turns int) error {
	fresh := make([][]tokenizer.Token, len(r.rows))
	for i := range r.rows {
		for j := range turns {
			token := tokens[j*len(r.rows)+i]
			r.rows[i] = append(r.rows[i], token)
			if !r.done[i] { // else it is padding
				fresh[i] = append(fresh[i], token)
				r.lengths[i]++
				r.done[i] = r.pick.ends(token)
			}
		}
	}
	if r.onBlock == nil {
		return nil
	}
	return r.onBlock(fresh)
}

// keep copies logits [turns or more, B, V] to the host.
func (r *run) keep(logits sharded, turns int) error {
	b, v := len(r.rows), r.g.model.config.VocabSize
	return tensors.ConstFlatData(logits.parts[0], func(flat []float32) {
		for j := range turns {
			rows := make([][]float32, b)
			for i := range rows {
				rows[i] = slices.Clone(flat[(j*b+i)*v : (j*b+i+1)*v])
			}
			r.logits = append(r.logits, rows)
		}
	})
}

func (r *run) padID() tokenizer.Token {
	if r.gc.PadID != 0 {
		return r.gc.PadID
	}
	return tokenizer.Token(r.g.model.config.PadID)
}

// finish frees the device's memory and sums up.
func (r *run) finish(ctx context.Context, err error) *Result {
	out := &Result{Tokens: r.rows, Lengths: r.lengths, Logits: r.logits, Stop: r.stop, Timing: r.clock}
	switch {
	case err != nil && ctx.Err() != nil:
		out.Stop = StopCancelled
	case err != nil:
		out.Stop = StopFailed
	case !slices.Contains(r.done, false):
		out.Stop = StopEOS
	}
	if s := r.cache; s != nil {
		// The state has the shapes of its plan, or the graphs would have refused it.
		out.DeviceCaches, _ = s.memory()
		for _, m := range out.DeviceCaches {
			out.Cache = out.Cache.Plus(m)
		}
		out.FullCacheBytes = s.fullBytes()
		s.free()
	}
	return out
}
