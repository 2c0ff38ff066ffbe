package serve

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/kvqbook/kvqbook/internal/stage"
	"github.com/kvqbook/kvqbook/llama"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// errEnding is what a request gets when the server ends.
var errEnding = errors.New("the server is ending")

// job is one text to be continued.
type job struct {
	ctx    context.Context
	prompt []tokenizer.Token
	gc     llama.GenerateConfig
	box    mailbox
}

// event is what has come of a job since the event before.
type event struct {
	tokens []tokenizer.Token
	logits [][]float32 // of tokens, with KeepLogits
	kept   int         // tokens of the prompt that were there already; with the first event
	stop   llama.StopReason
	end    *rowEnd // with stop
	err    error   // the last thing
}

// rowEnd is what the cache is like when a job is over.
type rowEnd struct {
	held, coded      int   // tokens of the row
	bytes, fullBytes int64 // of the whole cache, and of a full-precision one
}

// mailbox hands events to a client that may be slow: the engine never waits for it. It holds as
// much as one answer.
type mailbox struct {
	mu    sync.Mutex
	list  []event
	ready chan struct{}   // has room for one
	over  <-chan struct{} // closed when nothing more comes
}

func (m *mailbox) put(e event) {
	m.mu.Lock()
	m.list = append(m.list, e)
	m.mu.Unlock()
	select {
	case m.ready <- struct{}{}:
	default:
	}
}

// next waits for events, until ctx ends.
func (m *mailbox) next(ctx context.Context) ([]event, error) {
	for {
		m.mu.Lock()
		list := m.list
		m.list = nil
		m.mu.Unlock()
		if len(list) > 0 {
			return list, nil
		}
		select {
		case <-m.ready:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-m.over:
			m.mu.Lock()
			none := len(m.list) == 0
			m.mu.Unlock()
			if none {
				return nil, errEnding
			}
		}
	}
}

// engine gives rows of a batch to jobs. Its batch is used by one goroutine alone.
type engine struct {
	batch *llama.Batch
	jobs  chan *job
	stop  context.CancelFunc
	done  chan struct{}

	waiting []*job
	rows    []engineRow
	turn    int // counts the uses of rows
}

type engineRow struct {
	job  *job // nil: free
	used int  // the turn of its last use
}

// newEngine begins to take jobs; it owns the batch until close returns. tell is told what it waits
// for.
func newEngine(batch *llama.Batch, queue int, tell func(stage.Stage)) *engine {
	ctx, stop := context.WithCancel(stage.With(context.Background(), tell))
	e := &engine{batch: batch, jobs: make(chan *job, queue), stop: stop, done: make(chan struct{}), rows: make([]engineRow, batch.Rows())}
	go func() {
		defer close(e.done)
		e.run(ctx)
	}()
	return e
}

// close ends what is under way.
func (e *engine) close() {
	e.stop()
	<-e.done
}

// begin hands a job in; its events come to its mailbox.
func (e *engine) begin(ctx context.Context, prompt []tokenizer.Token, gc llama.GenerateConfig) *job {
	j := &job{ctx: ctx, prompt: prompt, gc: gc, box: mailbox{ready: make(chan struct{}, 1), over: e.done}}
	select {
	case e.jobs <- j:
	case <-e.done:
		j.box.put(event{err: errEnding})
	case <-ctx.Done():
		j.box.put(event{err: ctx.Err()})
	}
	return j
}

func (e *engine) run(ctx context.Context) {
	defer e.end()
	for ctx.Err() == nil {
		if !e.collect(ctx) {
			return
		}
		e.drop()
		e.seat(ctx)
		if slices.ContainsFunc(e.rows, func(r engineRow) bool { return r.job != nil }) {
			blocks, err := e.batch.Next(ctx)
			e.deliver(blocks, err)
		}
	}
}

// collect takes in the jobs that have come. It waits for one where there is nothing else to do.
func (e *engine) collect(ctx context.Context) bool {
	idle := len(e.waiting) == 0 && !slices.ContainsFunc(e.rows, func(r engineRow) bool { return r.job != nil })
	if idle {
		select {
		case j := <-e.jobs:
			e.waiting = append(e.waiting, j)
		case <-ctx.Done():
			return false
		}
	}
	for {
		select {
		case j := <-e.jobs:
			e.waiting = append(e.waiting, j)
		default:
			return true
		}
	}
}

// drop ends the jobs whose clients have gone.
func (e *engine) drop() {
	e.waiting = slices.DeleteFunc(e.waiting, func(j *job) bool { return e.gone(j) })
	for row, r := range e.rows {
		if r.job != nil && e.gone(r.job) {
			e.batch.End(row)
			e.rows[row].job = nil
		}
	}
}

func (e *engine) gone(j *job) bool {
	if j.ctx.Err() == nil {
		return false
	}
	j.box.put(event{err: j.ctx.Err()})
	return true
}

// seat gives free rows to waiting jobs, in the order in which these came.
func (e *engine) seat(ctx context.Context) {
	for len(e.waiting) > 0 {
		j := e.waiting[0]
		row := e.choose(j)
		if row < 0 {
			return
		}
		e.waiting = e.waiting[1:]
		reading, cancel := context.WithCancel(ctx) // which tells stages
		stop := context.AfterFunc(j.ctx, cancel)
		kept, block, err := e.batch.Read(reading, row, j.prompt, j.gc)
		stop()
		cancel()
		if err != nil {
			switch {
			case ctx.Err() != nil:
				err = errEnding
			case j.ctx.Err() != nil:
				err = j.ctx.Err()
			}
			j.box.put(event{err: err})
			continue
		}
		e.turn++
		e.rows[row] = engineRow{job: j, used: e.turn}
		e.give(block, kept)
	}
}

// choose is the free row that holds most of a job's prompt, among equals the one that was used
// longest ago; -1: none is free. A row that shares less than a quarter of what it holds is not
// taken for that: its own text may be wanted again.
func (e *engine) choose(j *job) int {
	best, score := -1, -1
	for row, r := range e.rows {
		if r.job != nil {
			continue
		}
		common := e.batch.Common(row, j.prompt)
		if 4*common < len(e.batch.Held(row)) {
			common = 0
		}
		if best < 0 || common > score || common == score && r.used < e.rows[best].used {
			best, score = row, common
		}
	}
	return best
}

// deliver hands out what a call of the loop has made. After a failure, rows that got nothing have
// ended.
func (e *engine) deliver(blocks []llama.RowBlock, err error) {
	for _, block := range blocks {
		e.give(block, 0)
	}
	if err == nil {
		return
	}
	for row, r := range e.rows {
		if r.job != nil && !e.batch.Busy(row) {
			r.job.box.put(event{err: err})
			e.rows[row].job = nil
		}
	}
}

// give hands a block to the job of its row, which is over with a reason to stop.
func (e *engine) give(block llama.RowBlock, kept int) {
	j := e.rows[block.Row].job
	ev := event{tokens: block.Tokens, logits: block.Logits, kept: kept, stop: block.Stop}
	if block.Stop != "" {
		e.rows[block.Row].job = nil
		ev.end, ev.err = e.ended(block.Row)
	}
	j.box.put(ev)
}

func (e *engine) ended(row int) (*rowEnd, error) {
	now, full, err := e.batch.Memory()
	if err != nil {
		return nil, err
	}
	coded, err := e.batch.Coded()
	if err != nil {
		return nil, err
	}
	return &rowEnd{len(e.batch.Held(row)), coded[row], now.Total(), full}, nil
}

// end tells all jobs that nothing more comes.
func (e *engine) end() {
	for _, r := range e.rows {
		if r.job != nil {
			r.job.box.put(event{err: errEnding})
		}
	}
	for _, j := range e.waiting {
		j.box.put(event{err: errEnding})
	}
	for {
		select {
		case j := <-e.jobs:
			j.box.put(event{err: errEnding})
		default:
			return
		}
	}
}
