package main

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"

	judging "github.com/kvqbook/kvqbook/internal/judge"
	"github.com/kvqbook/kvqbook/internal/judge/task"
	"github.com/kvqbook/kvqbook/internal/passkey"
	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/llama"
	"github.com/kvqbook/kvqbook/llama/evaluate"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// Parts of --judge. Each cache has a row in each of them.
const (
	partPosition = "position" // divergence by position in long texts
	partFree     = "free"     // what is written freely
	partAsked    = "asked"    // questions with one right answer, at one length
)

// sizes say how much is read and written.
type sizes struct {
	texts int
	edges []int // of the bins of positions; the last is the length of a text

	prompts   int // one text each, greedy
	seeds     int // sampled texts of each of the first prompts/seeds prompts
	newTokens int // of each text

	asked []askedSize
}

// askedSize is a number of questions of each of some kinds, at one length in tokens; so many go
// through the model at a time.
type askedSize struct {
	length, trials, batch int
	kinds                 []task.Kind
}

var (
	every = []task.Kind{task.Keys, task.Instruction, task.Copy, task.Sums}
	atEnd = []task.Kind{task.Keys, task.Instruction}

	// With a prompt of up to 48 tokens, 976 more fill a cache of 1,024 slots.
	fullSizes = sizes{texts: 3, edges: []int{64, 512, 1024, 2048, 4096, 7900}, prompts: 32, seeds: 8, newTokens: 976,
		asked: []askedSize{{1000, 40, 10, every}, {4000, 40, 10, atEnd}, {7900, 20, 5, atEnd}}}
	quickSizes = sizes{texts: 2, edges: []int{64, 128, 192, 256, 384}, prompts: 4, seeds: 2, newTokens: 96, asked: []askedSize{{500, 4, 4, every}}}
)

// numbers are the sizes, for the hash that a row is known by.
func (s sizes) numbers(part string) []tokenizer.Token {
	list := []int{len(part)}
	switch part {
	case partPosition:
		list = append(list, s.edges...)
	case partFree:
		list = append(list, s.prompts, s.seeds, s.newTokens, int(1000*temperature), topK)
	}
	var out []tokenizer.Token
	for _, n := range list {
		out = append(out, tokenizer.Token(n))
	}
	return out
}

// judgement is what --judge reads, and what its rows share.
type judgement struct {
	sizes
	long    [][]tokenizer.Token
	prompts [][]tokenizer.Token
	trials  map[int]askedTexts // by length

	kept    func() (*evaluate.Kept, error) // what full precision predicts for the long texts
	written func() (*writing, error)       // what full precision writes
}

// askedTexts are the questions of one length.
type askedTexts struct {
	batch int
	kinds []askedTrials
}

// askedTrials are those of one kind.
type askedTrials struct {
	kind   task.Kind
	trials []passkey.Trial
}

// judge is the program with --judge.
func judge(ctx context.Context, o options) error {
	s := fullSizes
	if o.quick {
		if s = quickSizes; o.results == "" || o.out == "" {
			return usererr.New("--quick without --results and --out: its rows are no results, want files for them that are not in docs")
		}
	}
	o.results, o.out = cmp.Or(o.results, filepath.Join("docs", "judged.jsonl")), cmp.Or(o.out, filepath.Join("docs", "judged.md"))
	jobs, err := choose(judgeJobs(s), o.only)
	if err != nil {
		return err
	}
	results, err := openStore(o.results)
	if err != nil {
		return err
	}
	if o.list || o.write {
		g := results.newestJudged()
		if o.list {
			return list(run{base: g.base, results: g.results}, jobs)
		}
		if len(g.results) == 0 {
			return usererr.New("%s has no results to write", o.results)
		}
		return g.write(o.out)
	}
	b, err := newBench(o, results)
	if err != nil {
		return err
	}
	if b.judge, err = newJudgement(ctx, b.tok, s, o.long); err != nil {
		return err
	}
	if err := b.open(o); err != nil {
		return err
	}
	missing, err := b.missing(jobs)
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		if err := b.load(ctx, len(missing), len(jobs)); err != nil {
			return err
		}
		b.share(ctx, missing)
		err = b.run(ctx, missing, o.atOnce)
	}
	// Also after a failure: what is there is worth reading.
	if g := results.newestJudged(); len(g.results) > 0 {
		if written := g.write(o.out); err == nil {
			err = written
		}
	}
	return err
}

// judgeJobs are the rows, those first that take the device longest: others compile meanwhile.
func judgeJobs(s sizes) (list []job) {
	add := func(part string, length int) {
		for _, c := range keyCaches() {
			list = append(list, job{step: c, part: part, length: length})
		}
	}
	add(partPosition, 0)
	add(partFree, 0)
	for _, a := range s.asked {
		add(partAsked, a.length)
	}
	return list
}

// newJudgement makes all texts, before any weight is read.
func newJudgement(ctx context.Context, tok *tokenizer.Tokenizer, s sizes, files string) (*judgement, error) {
	j := &judgement{sizes: s, trials: map[int]askedTexts{}}
	var err error
	if j.long, err = readLong(tok, files, s.texts, s.edges[len(s.edges)-1]); err != nil {
		return nil, err
	}
	if j.prompts, err = judging.Prompts(ctx, tok, s.prompts); err != nil {
		return nil, err
	}
	for _, a := range s.asked {
		texts := askedTexts{batch: a.batch}
		for _, kind := range a.kinds {
			trials, err := task.Trials(ctx, tok, kind, a.length, a.trials, 0)
			if err != nil {
				return nil, err
			}
			texts.kinds = append(texts.kinds, askedTrials{kind, trials})
		}
		j.trials[a.length] = texts
	}
	return j, nil
}

// rows are all tokens that a job's result is of.
func (j *judgement) rows(of job) [][]tokenizer.Token {
	list := [][]tokenizer.Token{j.numbers(of.part)}
	switch of.part {
	case partPosition:
		return append(list, j.long...)
	case partFree:
		return append(list, j.prompts...)
	}
	for _, a := range j.trials[of.length].kinds {
		for _, t := range a.trials {
			list = append(list, t.Text, t.Tail)
		}
	}
	return list
}

// share begins what several rows need of the full-precision cache, while their graphs are compiled.
func (b *bench) share(ctx context.Context, jobs []job) {
	b.judge.kept = sync.OnceValues(func() (*evaluate.Kept, error) {
		return evaluate.Keep(ctx, b.full, b.judge.long, evaluate.Options{Prefill: prefill, Whole: true})
	})
	b.judge.written = sync.OnceValues(func() (*writing, error) { return b.write(ctx, b.full) })
	needed := map[string]bool{}
	for _, j := range jobs {
		needed[j.part] = true
	}
	if needed[partPosition] {
		go func() { _, _ = b.judge.kept() }() // the rows get its error
	}
	if needed[partFree] {
		go func() { _, _ = b.judge.written() }()
	}
}

// judged is what a row of --judge found: Bins of positions, Texts written freely, or Asked.
type judged struct {
	Part  string        `json:"part"`
	Bins  []binScore    `json:"bins,omitempty"`
	Texts []writtenText `json:"texts,omitempty"`
	Asked []askedScore  `json:"asked,omitempty"`
}

// String is what a person who waits is told.
func (j *judged) String() string {
	var parts []string
	for _, b := range j.Bins {
		parts = append(parts, fmt.Sprintf("to %d: KL %.5f", b.To, b.KL))
	}
	for _, a := range j.Asked {
		parts = append(parts, fmt.Sprintf("%s %d of %d", a.Kind, a.right(), len(a.Right)))
	}
	if len(j.Texts) > 0 {
		parts = append(parts, fmt.Sprintf("%d texts written", len(j.Texts)))
	}
	return strings.Join(parts, "  ")
}

func (b *bench) measureJudged(ctx context.Context, g *llama.Generator, j job, r *result) (err error) {
	r.Judged = &judged{Part: j.part}
	switch j.part {
	case partPosition:
		err = b.byPosition(ctx, g, r)
	case partFree:
		err = b.free(ctx, g, r)
	default:
		err = b.ask(ctx, g, j.length, r)
	}
	return err
}
