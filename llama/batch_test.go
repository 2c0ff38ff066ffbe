package llama

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/internal/testlane"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/tokenizer"
)

func mustBatch(t testing.TB, g *Generator, rows int) *Batch {
	t.Helper()
	b, err := g.NewBatch(rows, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Finalize)
	return b
}

// someTokens are n ids that depend on seed.
func someTokens(seed, n int) []tokenizer.Token {
	list := make([]tokenizer.Token, n)
	for i := range list {
		list[i] = tokenizer.Token(3 + (seed*71+i*37+i*i%11)%250)
	}
	return list
}

// stream makes all tokens of a row.
func stream(t testing.TB, b *Batch, row int, prompt []tokenizer.Token, gc GenerateConfig) *Result {
	t.Helper()
	var r *Result
	for block, err := range b.Stream(context.Background(), row, prompt, gc) {
		if err != nil {
			t.Fatal(err)
		}
		r = block.Result
	}
	return r
}

// visitor is a prompt that comes to a batch.
type visitor struct {
	prompt []tokenizer.Token
	gc     GenerateConfig
	got    []tokenizer.Token
	stop   StopReason
}

// serve gives rows to visitors as these become free, in turn, until all were served.
func serve(t testing.TB, b *Batch, visitors []*visitor) {
	t.Helper()
	ctx, at := context.Background(), make([]*visitor, b.Rows())
	took := func(block RowBlock) {
		v := at[block.Row]
		v.got, v.stop = append(v.got, block.Tokens...), block.Stop
	}
	for waiting := visitors; ; {
		for row := range at {
			if !b.Busy(row) && len(waiting) > 0 {
				at[row], waiting = waiting[0], waiting[1:]
				_, first, err := b.Read(ctx, row, at[row].prompt, at[row].gc)
				if err != nil {
					t.Fatal(err)
				}
				took(first)
			}
		}
		blocks, err := b.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if blocks == nil && len(waiting) == 0 {
			return
		}
		for _, block := range blocks {
			took(block)
		}
	}
}

// Rows that come and go, each with settings of its own, make the tokens that each makes alone by
// the generator: greedy, by chance, with a penalty, to a stop string, to an ending.
func TestBatchRowsAnswerAlone(t *testing.T) {
	for name, cache := range caches {
		t.Run(name, func(t *testing.T) {
			testlane.OnlyAll(t, "compiles a batch for every kind of cache")
			g := tinyGenerator(t, "tiny-llama2-gqa", cache)
			tok := characterTokenizer(t, g.model.config.VocabSize)
			none := []tokenizer.Token{}
			settings := []GenerateConfig{
				{MaxNewTokens: 21, EOS: none},
				{MaxNewTokens: 30, EOS: none, DoSample: true, Temperature: 0.8, TopK: 20, Seed: 5},
				{MaxNewTokens: 9, EOS: none, DoSample: true, Temperature: 1.5, TopP: 0.9, MinP: 0.02, Seed: 6},
				{MaxNewTokens: 17, EOS: none, RepetitionPenalty: 3},
				{MaxNewTokens: 30, EOS: none, Tokenizer: tok}, // gets its stop string below
			}
			var visitors []*visitor
			var want []*Result
			for i, gc := range settings {
				v := &visitor{prompt: someTokens(i, 49+i*5), gc: gc}
				if gc.Tokenizer != nil {
					alone := mustGenerate(t, g, [][]int32{v.prompt}, nil, gc)
					v.gc.StopStrings = []string{tok.Decode(alone.Tokens[0][11:13], true)}
				}
				visitors, want = append(visitors, v), append(want, mustGenerate(t, g, [][]int32{v.prompt}, nil, v.gc))
			}
			b := mustBatch(t, g, 2)
			serve(t, b, visitors)
			for i, v := range visitors {
				if !slices.Equal(v.got, want[i].Tokens[0]) || v.stop != want[i].Stop {
					t.Errorf("visitor %d: %v (%s), alone %v (%s)", i, v.got, v.stop, want[i].Tokens[0], want[i].Stop)
				}
			}
			if now, full, err := b.Memory(); err != nil || now.Total() == 0 || full == 0 {
				t.Errorf("memory %v, %d, %v", now, full, err)
			}
		})
	}
}

// A text that goes on from what a row holds makes the tokens of the text that is read at once, with
// an exact cache: more tokens, fewer, a cut in the middle, the same again. Only what is new is
// read.
func TestBatchContinues(t *testing.T) {
	testlane.OnlyAll(t, "compiles prompts of many sizes; cmd/kvq's TestGenerateSaveAndLoadCache goes on once")
	g := tinyGenerator(t, "tiny-llama2-gqa", kvq.Config{})
	gc := GenerateConfig{MaxNewTokens: 8, EOS: []tokenizer.Token{}, BlockSize: 3}
	b := mustBatch(t, g, 1)
	text := someTokens(1, 40)
	held := 0
	for i, c := range []struct {
		prompt []tokenizer.Token
		kept   int // of the prompt; -1: what the row held
	}{
		{text, 0},
		{append(slices.Clone(text), someTokens(2, 5)...), 40},       // a part of what it made is not kept
		{append(slices.Clone(text[:30]), someTokens(3, 20)...), 30}, // a cut
		{append(slices.Clone(text[:30]), someTokens(3, 20)...), 49}, // the same again: the last token is read
		{text[:12], 11},
		{someTokens(4, 33), 0}, // another text
	} {
		if common := b.Common(0, c.prompt); min(common, len(c.prompt)-1) != c.kept {
			t.Errorf("prompt %d: %d of %d tokens are common, want %d kept", i, common, len(c.prompt), c.kept)
		}
		r := stream(t, b, 0, c.prompt, gc)
		want := mustGenerate(t, g, [][]int32{c.prompt}, nil, gc)
		if !slices.Equal(r.Tokens[0], want.Tokens[0]) || r.Kept != c.kept || r.Stop != StopLength {
			t.Errorf("prompt %d: %v (%d kept, %s), at once %v", i, r.Tokens[0], r.Kept, r.Stop, want.Tokens[0])
		}
		whole := append(slices.Clone(c.prompt), r.Tokens[0]...)
		if got := b.Held(0); !slices.Equal(got, whole[:len(whole)-1]) {
			t.Errorf("prompt %d: the row holds %v, want %v", i, got, whole[:len(whole)-1])
		}
		held = len(whole) - 1
	}
	// What it made itself is kept whole.
	next := append(append(b.Held(0), 9), someTokens(5, 4)...)
	if r := stream(t, b, 0, next, gc); r.Kept != held {
		t.Errorf("%d of %d tokens kept", r.Kept, held)
	}
}

// stateOf is what a batch holds on the device, as bytes.
func stateOf(t testing.TB, b *Batch) (all [][]byte) {
	t.Helper()
	for _, x := range b.cache.state {
		if err := x.parts[0].ConstBytes(func(data []byte) { all = append(all, slices.Clone(data)) }); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// sameCodes compares the first so many blocks of codes and scales of two states: every such array
// has blocks as its first axis. With rounding, scales may differ and one code in 200: sums over
// prompts of another length may be rounded in another way.
func sameCodes(t *testing.T, what string, b *Batch, blocks int, x, y [][]byte, rounding bool) {
	t.Helper()
	compared := 0
	for i, s := range b.Plan().Shapes() {
		if s.Rank() != 5 || rounding && s.DType.IsFloat() {
			continue
		}
		n, differ := blocks*len(x[i])/s.Dim(0), 0
		for j := range n {
			if x[i][j] != y[i][j] {
				differ++
			}
		}
		if compared += n; differ > 0 && (!rounding || differ > n/200) {
			t.Errorf("%s: array %d, %s: %d of %d bytes of the first %d blocks differ", what, i, s, differ, n, blocks)
		}
	}
	if compared == 0 {
		t.Errorf("%s: nothing to compare", what)
	}
}

// A saved prompt goes on after it is loaded, in another batch, as it does without: the same tokens
// and, bit for bit, the same cache. A token is coded once: what the file has as codes stays, and is
// what prompt and question have that are read at once.
func TestBatchSaveAndLoad(t *testing.T) {
	for name, cache := range caches {
		t.Run(name, func(t *testing.T) {
			testlane.OnlyAll(t, "compiles a batch for every kind of cache; cmd/kvq's TestGenerateSaveAndLoadCache goes this way")
			g := tinyGenerator(t, "tiny-llama2-gqa", cache)
			gc := GenerateConfig{MaxNewTokens: 7, EOS: []tokenizer.Token{}}
			path := filepath.Join(t.TempDir(), "cache")
			prompt, question := someTokens(1, 90), someTokens(2, 9)
			a, b := mustBatch(t, g, 1), mustBatch(t, g, 1)
			one := gc
			one.MaxNewTokens = 1
			stream(t, a, 0, prompt, one)
			if err := a.Save(path, "a note"); err != nil {
				t.Fatal(err)
			}
			saved, err := b.Load(path)
			if err != nil {
				t.Fatal(err)
			}
			if saved.Note != "a note" || !slices.Equal(saved.Tokens, prompt) || !slices.Equal(b.Held(0), prompt) {
				t.Errorf("loaded %q with %d tokens, the row holds %d", saved.Note, len(saved.Tokens), len(b.Held(0)))
			}
			before := stateOf(t, a)
			coded, err := a.Coded()
			if err != nil {
				t.Fatal(err)
			}
			all := append(slices.Clone(prompt), question...)
			x, y := stream(t, a, 0, all, gc), stream(t, b, 0, all, gc)
			if !slices.Equal(x.Tokens[0], y.Tokens[0]) || x.Kept != 90 || y.Kept != 90 {
				t.Errorf("without the file %v (%d kept), with it %v (%d kept)", x.Tokens[0], x.Kept, y.Tokens[0], y.Kept)
			}
			for i, data := range stateOf(t, a) {
				if !slices.Equal(data, stateOf(t, b)[i]) {
					t.Errorf("array %d of the cache differs", i)
				}
			}
			if name != "full" {
				blocks := coded[0] / 32
				sameCodes(t, "before and after", a, blocks, before, stateOf(t, a), false)
				b.Forget() // so that all is read at once
				stream(t, b, 0, all, gc)
				sameCodes(t, "in two parts and at once", a, blocks, before, stateOf(t, b), true)
			} else {
				if at := mustGenerate(t, g, [][]int32{all}, nil, gc); !slices.Equal(at.Tokens[0], x.Tokens[0]) {
					t.Errorf("in two parts %v, at once %v", x.Tokens[0], at.Tokens[0])
				}
			}
		})
	}
}

// A file of another model, cache or kind, or one that is damaged, is refused in one line, and the
// batch is as before.
func TestBatchLoadRefuses(t *testing.T) {
	testlane.OnlyAll(t, "compiles for two models")
	g := tinyGenerator(t, "tiny-llama2-gqa", kvq.Config{})
	gc := GenerateConfig{MaxNewTokens: 1, EOS: []tokenizer.Token{}}
	b := mustBatch(t, g, 1)
	dir := t.TempDir()
	path := filepath.Join(dir, "cache")
	stream(t, b, 0, someTokens(1, 20), gc)
	if err := b.Save(path, ""); err != nil {
		t.Fatal(err)
	}
	if list, _ := os.ReadDir(dir); len(list) != 1 {
		t.Errorf("%d files, want the cache alone", len(list))
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string, change func([]byte) []byte) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, change(slices.Clone(data)), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	other := mustBatch(t, tinyGenerator(t, "tiny-llama2", kvq.Config{}), 1)
	quantized := mustBatch(t, tinyGenerator(t, "tiny-llama2-gqa", caches["quanto"]), 1)
	two := mustBatch(t, g, 2)
	plain := filepath.Join(dir, "plain")
	var state []*tensors.Tensor
	for _, x := range b.cache.state {
		state = append(state, x.parts[0])
	}
	if err := kvq.Save(plain, b.cache.plan, state); err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		b          *Batch
		path, want string
	}{
		"another model":  {other, path, "another model"},
		"another cache":  {quantized, path, "another configuration"},
		"several rows":   {two, path, "a batch of 2 rows"},
		"no notes":       {b, plain, "does not say which tokens"},
		"cut off":        {b, write("short", func(d []byte) []byte { return d[:len(d)-5] }), "cut off"},
		"another token":  {b, write("token", func(d []byte) []byte { return []byte(strings.Replace(string(d), "tokens", "tokenz", 1)) }), "damaged"},
		"damaged codes":  {b, write("bit", func(d []byte) []byte { d[len(d)-9] ^= 1; return d }), "damaged"},
		"another format": {b, write("text", func([]byte) []byte { return []byte("hello") }), "safetensors"},
		"not there":      {b, filepath.Join(dir, "none"), "no such file"},
	} {
		if _, err := c.b.Load(c.path); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want one line with %q", what, err, c.want)
		}
	}
	if got := b.Held(0); !slices.Equal(got, someTokens(1, 20)) {
		t.Errorf("the batch holds %v afterwards", got)
	}
	if r := stream(t, b, 0, someTokens(1, 21), gc); r.Kept != 20 {
		t.Errorf("%d tokens kept afterwards", r.Kept)
	}
}

// A context that ends stops a row and leaves the batch usable: before the prompt is read, while
// tokens come, and beside another row, which goes on.
func TestBatchCancel(t *testing.T) {
	testlane.OnlyAll(t, "goes on in a batch of two")
	g := tinyGenerator(t, "tiny-llama2-gqa", kvq.Config{})
	gc := GenerateConfig{MaxNewTokens: 40, EOS: []tokenizer.Token{}, BlockSize: 4}
	b := mustBatch(t, g, 2)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, _, err := b.Read(ctx, 0, someTokens(1, 10), gc); err == nil || b.Busy(0) {
		t.Errorf("a context that has ended: %v, busy %v", err, b.Busy(0))
	}
	ctx, cancel = context.WithCancel(context.Background())
	defer cancel()
	var last Block
	var failure error
	for last, failure = range b.Stream(ctx, 0, someTokens(1, 10), gc) {
		if len(last.Result.Tokens[0]) >= 9 {
			cancel()
		}
	}
	want := mustGenerate(t, g, [][]int32{someTokens(1, 10)}, nil, gc).Tokens[0]
	if n := len(last.Result.Tokens[0]); failure == nil || last.Result.Stop != StopCancelled || n != 9 || !slices.Equal(last.Result.Tokens[0], want[:9]) {
		t.Errorf("cancelled: %v, %s, %v", failure, last.Result.Stop, last.Result.Tokens[0])
	}
	v := []*visitor{{prompt: someTokens(1, 10), gc: gc}, {prompt: someTokens(2, 30), gc: gc}, {prompt: someTokens(3, 12), gc: gc}}
	if _, _, err := b.Read(context.Background(), 1, someTokens(9, 10), gc); err != nil {
		t.Fatal(err)
	}
	b.End(1)
	serve(t, b, v)
	for i, v := range v {
		if want := mustGenerate(t, g, [][]int32{v.prompt}, nil, gc).Tokens[0]; !slices.Equal(v.got, want) {
			t.Errorf("visitor %d afterwards: %v, want %v", i, v.got, want)
		}
	}
}

// What no batch can do is refused before anything is compiled.
func TestBatchRefusals(t *testing.T) {
	g := tinyGenerator(t, "tiny-llama2-gqa", kvq.Config{})
	b := mustBatch(t, g, 1)
	ctx := context.Background()
	read := func(row int, prompt []tokenizer.Token, gc GenerateConfig) error {
		_, _, err := b.Read(ctx, row, prompt, gc)
		return err
	}
	for want, err := range map[string]error{
		"row 1, want 0 to 0":             read(1, someTokens(1, 3), GenerateConfig{}),
		"prompt 0 is empty":              read(0, []tokenizer.Token{}, GenerateConfig{}),
		"TeacherForced is for Generator": read(0, someTokens(1, 3), GenerateConfig{TeacherForced: [][]tokenizer.Token{{1}}}),
		"max_new_tokens = -1":            read(0, someTokens(1, 3), GenerateConfig{MaxNewTokens: -1}),
		"the row is empty":               b.Save("x", ""),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if _, err := g.NewBatch(0, 0); err == nil {
		t.Error("a batch of no rows")
	}
	if blocks, err := b.Next(ctx); blocks != nil || err != nil {
		t.Errorf("Next without rows: %v, %v", blocks, err)
	}
	if n := fmt.Sprint(b.Held(0), b.Plan()); n != "[] <nil>" {
		t.Error(n)
	}
}
