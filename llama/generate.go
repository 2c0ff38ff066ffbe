package llama

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/internal/generate"
	"github.com/kvqbook/kvqbook/internal/kvqhook"
	"github.com/kvqbook/kvqbook/internal/pick"
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

// Prepare begins to compile in the background what Generate needs for the same batch and config, or
// for others of the same sizes. The model's weights need not be there yet (see
// [LoadOptions.Ready]). Its errors are Generate's errors of the input.
func (g *Generator) Prepare(batch tokenizer.Batch, config GenerateConfig) error {
	r, err := g.newRun(batch, config)
	if err != nil {
		return err
	}
	r.start()
	return nil
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
// character, no special tokens, and nothing of a stop string. An error is the last thing that it
// yields.
func (g *Generator) StreamText(ctx context.Context, tok *tokenizer.Tokenizer, prompt string, config GenerateConfig) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		batch, err := tok.EncodeBatch([]string{prompt}, tokenizer.Padding{})
		if err != nil {
			yield("", err)
			return
		}
		if config.Tokenizer == nil {
			config.Tokenizer = tok
		}
		text, stop := tok.StreamAfter(batch.IDs[0], true), tokenizer.NewStopper(config.StopStrings...)
		for block, err := range g.Stream(ctx, batch, config) {
			if err != nil {
				yield("", err)
				return
			}
			if piece, _ := stop.Push(text.Push(block.Tokens[0]...)); piece != "" && !yield(piece, nil) {
				return
			}
		}
		rest, _ := stop.Push(text.Flush())
		if rest += stop.Flush(); rest != "" {
			yield(rest, nil)
		}
	}
}

// run is one generation.
type run struct {
	generate.Run
	g      *Generator
	gc     GenerateConfig // resolved
	prompt *prompt
	stop   StopReason // if the limit is reached
	pick   *pick.Picker
	texts  []*stopText // of each row; nil without stop strings

	plan   *kvq.Plan
	seen   func(*session) error // is shown the cache at the end; nil: nobody is
	cache  *session             // nil before prefill
	steps  *stepGraphs          // nil where it goes on in the loop
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
	r := &run{Run: generate.NewRun(rows, gc.MaxNewTokens), g: g, gc: gc, stop: StopLength}
	if gc.TeacherForced != nil {
		r.Limit = len(gc.TeacherForced[0])
	}
	// The last new token is never fed, so the first comes free when the prompt fills the context.
	if possible := c.MaxPositions - p.longest + 1; r.Limit > possible {
		if gc.TeacherForced != nil {
			return nil, usererr.New("%d forced tokens after a prompt of %d, the model reads at most %d together", r.Limit, p.longest, c.MaxPositions)
		}
		r.Limit, r.stop = possible, StopContext
	}
	r.prompt = p.resize(generate.PromptColumns(p.length))
	r.result = &Result{Tokens: r.Rows, Lengths: r.Lengths}
	r.pick = gc.picker(c, rows)
	r.begin(batch)
	r.Pace = generate.Pace{Fixed: gc.BlockSize, Most: r.key().block()}
	r.plan, err = g.plan(rows, generate.FirstCapacity(r.prompt.length, r.Limit))
	return r, err
}

// begin tells the rows' texts to what looks at them.
func (r *run) begin(batch tokenizer.Batch) {
	r.Pad = *r.gc.PadID
	for i := range batch.IDs {
		row := batch.Row(i)
		r.pick.Saw(i, row...)
		if len(r.gc.StopStrings) > 0 && r.gc.TeacherForced == nil {
			r.texts = append(r.texts, newStopText(r.gc, row))
		}
	}
	r.Ends = func(row int, token tokenizer.Token) bool {
		r.pick.Saw(row, token)
		stopped := r.texts != nil && r.texts[row].push(token)
		return stopped || r.pick.Ends(token)
	}
}

// blocks generates.
func (r *run) blocks(ctx context.Context, yield func(Block, error) bool) {
	defer r.free()
	r.Blocks(ctx, r, func(fresh [][]tokenizer.Token, over bool, err error) bool {
		r.sumUp()
		if over {
			if err == nil && r.seen != nil {
				err = r.seen(r.cache)
			}
			r.result.Stop = r.reason(ctx, err)
			if n := len(r.Rows[0]); len(r.result.Logits) > n { // rows that ended at a stop string
				r.result.Logits = r.result.Logits[:n]
			}
			if r.cache != nil && len(r.cache.state) > 0 {
				r.result.CodedTokens, _ = r.coded() // the state has the shapes of its plan
			}
		}
		return yield(Block{Tokens: fresh, Result: r.result}, err)
	})
	if r.result.Stop == "" {
		r.result.Stop = StopBreak
	}
}

// coded counts the tokens of each row that are kept as codes. The device is asked where more came
// than a prompt.
func (r *run) coded() ([]int, error) {
	if r.cache.used > r.prompt.length {
		return r.cache.coded()
	}
	counts := make([]int, len(r.prompt.start))
	for i, start := range r.prompt.start {
		counts[i] = kvqhook.CodedOfPrompt(r.cache.plan, r.prompt.length-int(start))
	}
	return counts, nil
}

func (r *run) key() decodeKey {
	return decodeKey{pick: r.pick.Kind, forced: r.gc.TeacherForced != nil, keepLogits: r.gc.KeepLogits}
}

// run is a generate.Batch.
var _ generate.Batch = (*run)(nil)

func (r *run) Capacity() int { return r.cache.capacity() }
func (r *run) Room() int     { return r.cache.room() }

func (r *run) Prepare(capacity int) error {
	larger, err := r.cache.plan.WithCapacity(capacity)
	if err == nil && r.steps == nil {
		r.g.startDecode(larger, r.key())
	}
	return err
}

func (r *run) Grow(ctx context.Context, capacity int) error { return r.cache.grow(ctx, capacity) }

// start begins to compile the graphs.
func (r *run) start() {
	if r.Limit > 1 && r.inSteps() { // the larger ones first
		r.steps = r.g.startSteps(r.plan)
	}
	r.g.startPrompt(r.plan, r.prompt.length)
	if r.plan.KeyMetric().Ok() {
		r.g.startMetrics(r.plan)
	}
	if r.gc.TeacherForced == nil {
		r.g.startPick(len(r.Rows), r.pick.Kind)
	}
	if r.Limit > 1 && r.steps == nil {
		r.g.startDecode(r.plan, r.key())
	}
}

// First takes the prompt in and picks the first token of each row. The graphs of the whole
// generation are compiled at the same time.
func (r *run) First(ctx context.Context) (first generate.Decoded, err error) {
	r.start()
	cache, logits, err := r.g.prefill(ctx, r.plan, r.prompt, &r.result.Timing)
	if err != nil {
		return first, err
	}
	r.cache = cache
	defer free(logits)
	if r.gc.KeepLogits {
		if err := r.keep(logits, 1); err != nil {
			return first, err
		}
	}
	tokens := r.forced(1)
	if r.gc.TeacherForced == nil {
		if tokens, err = r.pickOne(ctx, logits); err != nil {
			return first, err
		}
	}
	return generate.Decoded{Steps: 1, Tokens: tokens}, nil
}

// pickOne picks the next token of each row from logits [B, V].
func (r *run) pickOne(ctx context.Context, logits sharded) ([]tokenizer.Token, error) {
	tokens, sound, err := r.g.pickOne(ctx, &r.result.Timing, r.pick, len(r.Rows), len(r.Rows[0]), logits)
	if err != nil {
		return nil, err
	}
	return tokens, r.checkNumbers(sound)
}

// pickOne picks a token for each of so many rows from logits [B, V], and says whether these were
// numbers. made is how many new tokens the rows have.
func (g *Generator) pickOne(ctx context.Context, clock *Timing, picker *pick.Picker, rows, made int, logits sharded) (tokens []tokenizer.Token, sound []bool, err error) {
	program := g.startPick(rows, picker.Kind)
	if err := clock.compiling(func() error { return program.Wait(ctx) }); err != nil {
		return nil, nil, err
	}
	inputs := append([]any{logits}, picker.Inputs(made, 1, 1)...)
	out, err := g.programs.runPlain(context.WithoutCancel(ctx), program, inputs...)
	if err != nil {
		return nil, nil, err
	}
	defer free(out...)
	err = inParallel(len(out), func(i int) (err error) {
		if i == 0 {
			tokens, err = read[tokenizer.Token](out[0])
		} else {
			sound, err = read[bool](out[1])
		}
		return err
	})
	return tokens, sound, err
}

// checkNumbers refuses to go on from logits that are not numbers, instead of writing nonsense.
func (r *run) checkNumbers(sound []bool) error {
	row := slices.Index(sound, false)
	if row < 0 || r.Done[row] {
		return nil
	}
	return r.g.notNumbers(row, len(r.Rows[row]))
}

func (g *Generator) notNumbers(row, made int) error {
	return fmt.Errorf("the model's logits for row %d are not numbers after %d new tokens: the weights are damaged, or too large for %s (try float32)",
		row, made, g.model.dtype)
}

// Decode goes on in the decode loop, or makes one step.
func (r *run) Decode(ctx context.Context, n int) (made generate.Decoded, err error) {
	if r.steps != nil {
		return r.decodeStep(ctx)
	}
	key := r.key()
	var inputs []any
	if key.forced {
		inputs = []any{tensors.FromFlatDataAndDimensions(r.forced(key.block()), key.block(), len(r.Rows))}
	} else {
		inputs = r.pick.Inputs(len(r.Rows[0]), n, key.block())
	}
	compiled := r.result.Timing.Compile
	start := time.Now()
	out, err := r.cache.decode(ctx, key, n, r.Limit-len(r.Rows[0]), r.Newest(), r.Done, *r.gc.PadID, inputs...)
	if err != nil {
		return made, err
	}
	defer free(out.logits)
	took := time.Since(start) - (r.result.Timing.Compile - compiled)
	r.result.Timing.Decode += took
	r.result.Timing.Steps += out.steps
	if err := r.checkNumbers(out.sound); err != nil {
		return made, err
	}
	if key.keepLogits {
		if err := r.keep(out.logits, out.steps); err != nil {
			return made, err
		}
	}
	return generate.Decoded{Steps: out.steps, Tokens: out.tokens, Took: took}, nil
}

// forced are the next given tokens [n, B]; past their end, zeros.
func (r *run) forced(n int) []tokenizer.Token {
	out := make([]tokenizer.Token, n*len(r.Rows))
	for i, row := range r.gc.TeacherForced {
		for j, token := range row[len(r.Rows[i]):min(len(row), len(r.Rows[i])+n)] {
			out[j*len(r.Rows)+i] = token
		}
	}
	return out
}

// keep copies logits [steps or more, B, V] to the host.
func (r *run) keep(logits sharded, steps int) error {
	list, err := readLogits(logits, steps, len(r.Rows))
	r.result.Logits = append(r.result.Logits, list...)
	return err
}

// readLogits copies logits [steps or more, B, V] to the host, as [steps][B][V].
func readLogits(logits sharded, steps, b int) (list [][][]float32, err error) {
	shape := logits.parts[0].Shape()
	v := shape.Dim(-1)
	err = tensors.ConstFlatData(logits.parts[0], func(flat []float32) {
		for j := range steps {
			rows := make([][]float32, b)
			for i := range rows {
				rows[i] = slices.Clone(flat[(j*b+i)*v : (j*b+i+1)*v])
			}
			list = append(list, rows)
		}
	})
	return list, err
}

// reason says why the generation ended.
func (r *run) reason(ctx context.Context, err error) StopReason {
	switch {
	case err != nil && ctx.Err() != nil:
		return StopCancelled
	case err != nil:
		return StopFailed
	case !slices.Contains(r.Done, false):
		if slices.ContainsFunc(r.texts, func(t *stopText) bool { return t.stop.Stopped() }) {
			return StopString
		}
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
	_ = r.cache.sumUp(r.result)
}

// free gives the cache's memory on the device back.
func (r *run) free() {
	if r.cache != nil {
		r.cache.free()
	}
}
