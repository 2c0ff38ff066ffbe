package llama

import (
	"context"
	"slices"

	"github.com/kvqbook/kvqbook/internal/generate"
	"github.com/kvqbook/kvqbook/internal/pick"
	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// Batch is rows of text over one cache that come and go, and keep what they hold: a chat goes on
// from what was said, a server gives a row that has ended to the next request, and a long prompt is
// read once for many questions.
//
// A row holds tokens. [Batch.Read] gives it a prompt and reads what the row does not hold already,
// by the longest common beginning. [Batch.Next] then makes new tokens for all rows that are under
// way, by the loop on the device, until one of them ends. Each row has settings of its own, and
// gets the tokens that it would get alone, whatever the others do. [Batch.Stream] is both for one
// row.
//
// What a quantized cache holds are codes, each made once. A prompt that is read at once attends to
// its own exact keys and values; one that is continued attends to the codes of what was there
// before, as new tokens do. So with a quantized cache a continued text may differ from one that is
// read at once; with a full-precision cache it does not.
//
// Methods are not to be called at the same time. The zero value is not usable.
type Batch struct {
	g        *Generator
	rows     []batchRow
	capacity int      // of the first cache, at least
	cache    *session // nil: no row was read yet
	clock    Timing
	pace     generate.Pace
	ended    bool // Finalize was called
}

// batchRow is one row.
type batchRow struct {
	held []tokenizer.Token // what the cache holds
	made *rowGeneration    // nil: it rests
}

// rowGeneration is the generation under way in a row.
type rowGeneration struct {
	gc     GenerateConfig // resolved
	pick   *pick.Picker
	text   *stopText // nil without stop strings
	newest tokenizer.Token
	count  int // new tokens
	limit  int
	stop   StopReason // if the limit is reached
}

// NewBatch makes a batch of empty rows. capacity is how many tokens of a row the cache has room for
// at first, 0 for what the first prompt needs; it grows. Nothing is compiled yet. The caller ends
// it with [Batch.Finalize]; the compiled graphs stay with the generator.
func (g *Generator) NewBatch(rows, capacity int) (*Batch, error) {
	if rows < 1 {
		return nil, usererr.New("llama.Generator.NewBatch: %d rows, want at least 1", rows)
	}
	if capacity < 0 {
		return nil, usererr.New("llama.Generator.NewBatch: a capacity of %d tokens, want 0 (as the first prompt needs) or more", capacity)
	}
	return &Batch{g: g, rows: make([]batchRow, rows), capacity: capacity, pace: generate.Pace{Most: generate.MaxBlock}}, nil
}

// Rows is how many rows there are.
func (b *Batch) Rows() int { return len(b.rows) }

// Held are the tokens of a row that the cache holds. The newest token of a generation is not among
// them: the model has not read it.
func (b *Batch) Held(row int) []tokenizer.Token { return slices.Clone(b.rows[row].held) }

// Busy tells whether a generation is under way in a row.
func (b *Batch) Busy(row int) bool { return b.rows[row].made != nil }

// Common is how many tokens at the beginning of prompt a row holds: what Read may keep of them.
func (b *Batch) Common(row int, prompt []tokenizer.Token) int {
	held := b.rows[row].held
	n := 0
	for n < min(len(held), len(prompt)) && held[n] == prompt[n] {
		n++
	}
	return n
}

// End ends the generation of a row, if one is under way. What the row holds stays for the next
// prompt.
func (b *Batch) End(row int) { b.rows[row].made = nil }

// Forget empties rows that no generation is under way in; no rows stands for all.
func (b *Batch) Forget(rows ...int) {
	for row := range b.rows {
		if len(rows) == 0 || slices.Contains(rows, row) {
			// The device is told when the row is used again: what it has there is not looked at.
			b.rows[row] = batchRow{}
		}
	}
}

// Timing is where the time of all calls so far went.
func (b *Batch) Timing() Timing { return b.clock }

// Plan is the layout of the cache as it is now, on all devices together; nil before the first
// prompt.
func (b *Batch) Plan() *kvq.Plan {
	if b.cache == nil {
		return nil
	}
	plan, err := b.g.withHeads(b.cache.plan, b.g.model.config.KVHeads)
	if err != nil {
		return nil // cannot be: a part of it is there
	}
	return plan
}

// Memory is what the cache takes now, on all devices together, and what a full-precision one for as
// many tokens would take; zero before the first prompt.
func (b *Batch) Memory() (now kvq.Memory, full int64, err error) {
	if b.cache == nil {
		return now, 0, nil
	}
	each, err := b.cache.memory()
	return together(each), b.cache.fullBytes(), err
}

// Coded is how many tokens of each row [B] the cache keeps as codes; zeros in full precision.
func (b *Batch) Coded() ([]int, error) {
	counts := make([]int, len(b.rows))
	if b.cache == nil {
		return counts, nil
	}
	coded, err := b.cache.coded()
	for row := range b.rows {
		if err == nil && len(b.rows[row].held) > 0 {
			counts[row] = coded[row]
		}
	}
	return counts, err
}

// Finalize frees what the batch holds on the device.
func (b *Batch) Finalize() {
	b.lose()
	b.ended = true
}

// lose drops the cache and all that rows hold, after a call that failed.
func (b *Batch) lose() {
	if b.cache != nil {
		b.cache.free()
	}
	b.cache = nil
	for row := range b.rows {
		b.rows[row] = batchRow{}
	}
}

// check refuses what no row can be asked.
func (b *Batch) check(method string, row int) error {
	switch {
	case b.ended:
		return usererr.New("llama.Batch.%s: the batch is finalized", method)
	case row < 0 || row >= len(b.rows):
		return usererr.New("llama.Batch.%s: row %d, want 0 to %d", method, row, len(b.rows)-1)
	case b.rows[row].made != nil:
		return usererr.New("llama.Batch.%s: a generation is under way in row %d, End it first", method, row)
	}
	return nil
}

// shape is that of the cache with so many slots a row.
func (b *Batch) shape(capacity int) kvq.Shape {
	s := b.g.shape(len(b.rows), capacity)
	s.OwnLengths = true
	return s
}

// makeRoom makes the cache where there is none yet, and grows it until a row of so many tokens
// fits.
func (b *Batch) makeRoom(ctx context.Context, tokens int) error {
	if b.cache == nil {
		plan, err := b.g.planOf(b.shape(generate.FirstCapacity(max(tokens, b.capacity), 1)))
		if err != nil {
			return err
		}
		b.cache = &session{g: b.g, plan: plan, clock: &b.clock}
		out, err := b.run(ctx, b.g.startEmpty(plan), make([]int32, len(b.rows)))
		if err != nil {
			b.cache = nil
			return err
		}
		b.cache.state = out
	}
	capacity := b.cache.capacity()
	for capacity < tokens {
		capacity *= 2
	}
	if capacity == b.cache.capacity() {
		return nil
	}
	return b.cache.grow(ctx, capacity)
}

// run calls a program that takes no cache, once it is compiled.
func (b *Batch) run(ctx context.Context, p program, inputs ...any) ([]sharded, error) {
	if err := b.clock.compiling(func() error { return p.Wait(ctx) }); err != nil {
		return nil, err
	}
	return b.g.programs.run(context.WithoutCancel(ctx), p, inputs...)
}

// update calls a program that writes a new cache in the place of the old one, and returns its other
// outputs. Once it runs it is not given up; when it fails, the cache is lost.
func (b *Batch) update(ctx context.Context, p program, more ...any) ([]sharded, error) {
	if err := b.clock.compiling(func() error { return p.Wait(ctx) }); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	out, err := b.g.programs.run(context.WithoutCancel(ctx), p, b.cache.donate(more...)...)
	if err != nil {
		b.lose()
		return nil, err
	}
	return b.cache.replace(out), nil
}

// Prepare begins to compile the loop for rows with such settings in the background, while a person
// types or a prompt is read, for a cache as large as it is now or begins.
func (b *Batch) Prepare(gc GenerateConfig) error {
	if err := gc.Validate(b.g.model.config); err != nil {
		return err
	}
	var plan *kvq.Plan
	if b.cache != nil {
		plan = b.cache.plan
	} else {
		var err error
		if plan, err = b.g.planOf(b.shape(generate.FirstCapacity(b.capacity, 1))); err != nil {
			return err
		}
		b.g.startEmpty(plan)
	}
	pickers := make([]*pick.Picker, len(b.rows))
	pickers[0] = gc.picker(b.g.model.config, 1)
	b.g.startPick(1, pickers[0].Kind)
	b.g.startDecode(plan, decodeKey{pick: pick.Together(pickers), keepLogits: gc.KeepLogits})
	return nil
}
