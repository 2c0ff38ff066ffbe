package llama

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/internal/engine"
	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// Generate continues each row of a batch, whose padding is on the left. The prompt goes through in
// one call; then tokens come in blocks.
//
// When ctx ends or the device fails, the Result holds what was generated so far, together with the
// error. Errors of the input come before anything is compiled, with a nil Result; they are
// [ErrInput].
func (g *Generator) Generate(ctx context.Context, batch tokenizer.Batch, config GenerateConfig) (*Result, error) {
	var last *Result
	for block, err := range g.Stream(ctx, batch, config) {
		if last = block.Result; err != nil {
			return last, err
		}
	}
	return last, nil
}

// Block is the new tokens of one call on the device.
type Block struct {
	// Tokens are every row's own new tokens; none for rows that have ended before.
	Tokens [][]tokenizer.Token
	// Result is the generation up to here: one value that grows with each block, and is complete
	// with the last.
	Result *Result
}

// Stream is Generate in blocks of tokens, as they come. An error is the last thing that it yields;
// the block with it has no tokens, and the Result as Generate returns it. A loop that breaks ends
// the generation, and frees its memory on the device.
func (g *Generator) Stream(ctx context.Context, batch tokenizer.Batch, config GenerateConfig) iter.Seq2[Block, error] {
	return func(yield func(Block, error) bool) {
		run, err := g.newRun(batch, config)
		if err != nil {
			yield(Block{}, err)
			return
		}
		run.blocks(ctx, yield)
	}
}

// StreamText continues one text and yields the new text in pieces, as it comes: never a part of a
// character, and no special tokens. An error is the last thing that it yields.
func (g *Generator) StreamText(ctx context.Context, tok *tokenizer.Tokenizer, prompt string, config GenerateConfig) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		batch, err := tok.EncodeBatch([]string{prompt}, tokenizer.Padding{})
		if err != nil {
			yield("", err)
			return
		}
		text := tok.StreamAfter(batch.IDs[0], true)
		for block, err := range g.Stream(ctx, batch, config) {
			if err != nil {
				yield("", err)
				return
			}
			if piece := text.Push(block.Tokens[0]...); piece != "" && !yield(piece, nil) {
				return
			}
		}
		if rest := text.Flush(); rest != "" {
			yield(rest, nil)
		}
	}
}

// run is one generation.
type run struct {
	g      *Generator
	gc     GenerateConfig // resolved
	prompt *prompt
	limit  int        // tokens wanted, and possible
	stop   StopReason // if limit is reached
	pick   picking
	pace   pace

	plan   *kvq.Plan
	cache  *session            // nil before prefill
	rows   [][]tokenizer.Token // new tokens, padding included
	done   []bool
	result *Result
}

// newRun checks all input.
func (g *Generator) newRun(batch tokenizer.Batch, gc GenerateConfig) (*run, error) {
	c, rows := g.model.config, len(batch.IDs)
	if err := gc.Validate(c); err != nil {
		return nil, err
	}
	p, err := newPrompt(batch, c)
	if err != nil {
		return nil, err
	}
	if err := checkTeacherForced(gc.TeacherForced, rows, c); err != nil {
		return nil, err
	}
	gc = gc.resolved(c)
	r := &run{g: g, gc: gc, limit: gc.MaxNewTokens, stop: StopLength}
	if gc.TeacherForced != nil {
		r.limit = len(gc.TeacherForced[0])
	}
	// The last new token is never fed, so the first comes free when the prompt fills the context.
	if possible := c.MaxPositions - p.longest + 1; r.limit > possible {
		if gc.TeacherForced != nil {
			return nil, usererr.New("%d forced tokens after a prompt of %d, the model reads at most %d together", r.limit, p.longest, c.MaxPositions)
		}
		r.limit, r.stop = possible, StopContext
	}
	r.prompt = p.resize(engine.PromptColumns(p.length))
	r.rows, r.done = make([][]tokenizer.Token, rows), make([]bool, rows)
	r.result = &Result{Tokens: r.rows, Lengths: make([]int, rows)}
	r.pick = newPicking(gc, c, rows)
	r.pace = pace{fixed: gc.BlockSize, most: r.key().block()}
	r.plan, err = g.Plan(rows, engine.FirstCapacity(r.prompt.length, r.limit))
	return r, err
}

// blocks generates. It is the one loop of all generation.
func (r *run) blocks(ctx context.Context, yield func(Block, error) bool) {
	defer r.free()
	fresh, err := r.begin(ctx)
	for {
		over := err != nil || len(r.rows[0]) >= r.limit || !slices.Contains(r.done, false)
		r.sumUp()
		if over {
			r.result.Stop = r.reason(ctx, err)
			if r.cache != nil && len(r.cache.state) > 0 {
				r.result.CodedTokens, _ = r.cache.coded() // the state has the shapes of its plan
			}
			r.free()
		}
		if !yield(Block{Tokens: fresh, Result: r.result}, err) || over {
			break
		}
		fresh = nil
		if err = ctx.Err(); err == nil {
			fresh, err = r.more(ctx)
		}
	}
	if r.result.Stop == "" {
		r.result.Stop = StopBreak
	}
}

func (r *run) key() decodeKey {
	return decodeKey{pick: r.pick.kind, forced: r.gc.TeacherForced != nil, keepLogits: r.gc.KeepLogits}
}

// begin takes the prompt in and makes the first tokens. The graphs of the whole generation are
// compiled at the same time.
func (r *run) begin(ctx context.Context) ([][]tokenizer.Token, error) {
	r.g.startPrefill(r.plan, r.prompt.length)
	if r.gc.TeacherForced == nil {
		r.g.startPick(len(r.rows), r.pick.kind)
	}
	if r.limit > 1 {
		r.g.startDecode(r.plan, r.key())
	}
	return r.first(ctx)
}

// first takes the prompt in and picks the first token of each row.
func (r *run) first(ctx context.Context) ([][]tokenizer.Token, error) {
	cache, logits, err := r.g.prefill(ctx, r.plan, r.prompt, &r.result.Timing)
	if err != nil {
		return nil, err
	}
	r.cache = cache
	defer free(logits)
	if r.gc.KeepLogits {
		if err := r.keep(logits, 1); err != nil {
			return nil, err
		}
	}
	tokens := r.forced(1)
	if r.gc.TeacherForced == nil {
		if tokens, err = r.pickFirst(ctx, logits); err != nil {
			return nil, err
		}
	}
	return r.take(tokens, 1), nil
}

func (r *run) pickFirst(ctx context.Context, logits sharded) ([]tokenizer.Token, error) {
	program := r.g.startPick(len(r.rows), r.pick.kind)
	if err := r.result.Timing.compiling(func() error { return program.Wait(ctx) }); err != nil {
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
func (r *run) more(ctx context.Context) ([][]tokenizer.Token, error) {
	made, wanted := len(r.rows[0]), r.limit-len(r.rows[0])
	if err := r.makeRoom(ctx, wanted); err != nil {
		return nil, err
	}
	key := r.key()
	n := min(r.pace.next(), wanted, r.cache.room())
	newest := make([]tokenizer.Token, len(r.rows))
	for i, row := range r.rows {
		newest[i] = row[len(row)-1]
	}
	inputs := []any{[]int32{int32(n)}, newest, r.done, []tokenizer.Token{*r.gc.PadID}}
	if key.forced {
		inputs = append(inputs, tensors.FromFlatDataAndDimensions(r.forced(key.block()), key.block(), len(r.rows)))
	} else {
		inputs = append(inputs, r.pick.inputs(made, n, key.block())...)
	}
	compiled := r.result.Timing.Compile
	start := time.Now()
	out, err := r.cache.decode(ctx, key, inputs...)
	if err != nil {
		return nil, err
	}
	defer free(out.logits)
	took := time.Since(start) - (r.result.Timing.Compile - compiled)
	r.result.Timing.Decode += took
	r.result.Timing.Steps += out.steps
	r.pace.measured(out.steps, took)
	if err := r.checkNumbers(out.sound); err != nil {
		return nil, err
	}
	if key.keepLogits {
		if err := r.keep(out.logits, out.steps); err != nil {
			return nil, err
		}
	}
	return r.take(out.tokens, out.steps), nil
}

// makeRoom grows a full cache, and has the graph for the next size compiled before the cache is
// full.
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
	for i, row := range r.gc.TeacherForced {
		for j, token := range row[len(r.rows[i]):min(len(row), len(r.rows[i])+n)] {
			out[j*len(r.rows)+i] = token
		}
	}
	return out
}

// take adds new tokens [steps, B] to the rows, and returns those that are the rows' own.
func (r *run) take(tokens []tokenizer.Token, steps int) [][]tokenizer.Token {
	fresh := make([][]tokenizer.Token, len(r.rows))
	for i := range r.rows {
		for j := range steps {
			token := tokens[j*len(r.rows)+i]
			r.rows[i] = append(r.rows[i], token)
			if !r.done[i] { // else it is padding
				fresh[i] = append(fresh[i], token)
				r.result.Lengths[i]++
				r.done[i] = r.pick.ends(token)
			}
		}
	}
	return fresh
}

// keep copies logits [steps or more, B, V] to the host.
func (r *run) keep(logits sharded, steps int) error {
	b, v := len(r.rows), r.g.model.config.VocabSize
	return tensors.ConstFlatData(logits.parts[0], func(flat []float32) {
		for j := range steps {
			rows := make([][]float32, b)
			for i := range rows {
				rows[i] = slices.Clone(flat[(j*b+i)*v : (j*b+i+1)*v])
			}
			r.result.Logits = append(r.result.Logits, rows)
		}
	})
}

// reason says why the generation ended.
func (r *run) reason(ctx context.Context, err error) StopReason {
	switch {
	case err != nil && ctx.Err() != nil:
		return StopCancelled
	case err != nil:
		return StopFailed
	case !slices.Contains(r.done, false):
		return StopEOS
	}
	return r.stop
}

// sumUp says what the cache takes now.
func (r *run) sumUp() {
	if r.cache == nil || len(r.cache.state) == 0 {
		return
	}
	// The state has the shapes of its plan, or the graphs would have refused it.
	r.result.DeviceCaches, _ = r.cache.memory()
	r.result.Cache = kvq.Memory{}
	for _, m := range r.result.DeviceCaches {
		r.result.Cache = r.result.Cache.Plus(m)
	}
	r.result.FullCacheBytes, r.result.Slots = r.cache.fullBytes(), r.cache.capacity()
}

// free gives the cache's memory on the device back.
func (r *run) free() {
	if r.cache != nil {
		r.cache.free()
	}
}
