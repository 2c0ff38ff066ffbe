package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/kvqbook/kvqbook/internal/cli"
	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// talk is a conversation under way.
type talk struct {
	out, errs io.Writer
	person    bool // sits at a terminal
	quiet     bool

	model    llama.Config
	tok      *tokenizer.Tokenizer
	config   kvq.Config
	generate llama.GenerateConfig
	saved    *llama.Saved // nil: begun anew
	batch    *llama.Batch

	system   string
	messages []tokenizer.Message
	before   string            // begins the next message
	written  []tokenizer.Token // of the turn before: its prompt and its answer, as far as they are kept
	last     *llama.Result     // of the turn before
	told     bool              // that the template writes what was said differently

	mu   sync.Mutex
	stop context.CancelFunc // ends the answer under way; nil: none is
}

// stopAnswer ends the answer under way, on Ctrl-C, and tells whether there is one.
func (t *talk) stopAnswer(s os.Signal) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s != os.Interrupt || t.stop == nil {
		return false
	}
	t.stop()
	return true
}

func (t *talk) setStop(stop context.CancelFunc) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stop = stop
}

// conversation is what was said, the system prompt first.
func (t *talk) conversation(more ...tokenizer.Message) []tokenizer.Message {
	var list []tokenizer.Message
	if t.system != "" {
		list = append(list, tokenizer.Message{Role: "system", Content: t.system})
	}
	return slices.Concat(list, t.messages, more)
}

// answer has the model answer a message, and prints the answer as it comes.
func (t *talk) answer(ctx context.Context, text string) error {
	user := tokenizer.Message{Role: "user", Content: t.before + text}
	prompt, err := t.tok.EncodeChat(ctx, t.conversation(user), true)
	if err != nil {
		return err
	}
	if err := checkIDs(t.tok, t.model, prompt, "the message as the chat template writes it"); err != nil {
		return err
	}
	if n := len(prompt); n > t.model.MaxPositions {
		return usererr.New("the context is full: with this message the conversation has %d tokens, the model reads at most %d; /reset begins anew", n, t.model.MaxPositions)
	}
	turn, stop := context.WithCancel(ctx)
	t.setStop(stop)
	defer func() { t.setStop(nil); stop() }()
	said, result, err := t.stream(turn, prompt)
	stopped := turn.Err() != nil && ctx.Err() == nil
	if err != nil && !stopped {
		return err
	}
	t.last = result
	if result == nil || len(result.Tokens[0]) == 0 {
		fmt.Fprintln(t.errs, "kvq: stopped before the answer began; the message is forgotten")
		return nil
	}
	t.written = slices.Concat(prompt, result.Tokens[0])
	if result.Stop == llama.StopString { // what was cut off is not said
		t.written = prompt
	}
	t.before = ""
	t.messages = append(t.messages, user, tokenizer.Message{Role: "assistant", Content: said})
	switch {
	case stopped:
		cli.Note(t.errs, "(stopped)")
	case result.Stop == llama.StopContext:
		fmt.Fprintf(t.errs, "kvq: the context of %d tokens is full, and the answer ends here: /save FILE keeps the conversation, /reset begins anew\n", t.model.MaxPositions)
	case result.Stop == llama.StopLength:
		cli.Note(t.errs, "(cut at %d tokens: --max-new-tokens)", t.generate.MaxNewTokens)
	}
	return nil
}

// stream generates after a prompt and returns the text that it has printed.
func (t *talk) stream(ctx context.Context, prompt []tokenizer.Token) (said string, result *llama.Result, err error) {
	text, stops := t.tok.StreamAfter(prompt, true), tokenizer.NewStopper(t.generate.StopStrings...)
	status := cli.NewStatus(t.errs, t.quiet)
	defer status.Close()
	wanted, blocks, waiting := t.batch.Common(0, t.written), 0, ""
	show := func(piece string) error {
		said += piece
		if cli.IsTerminal(t.out) {
			piece = cli.Printable(piece)
		}
		_, err := io.WriteString(t.out, piece)
		return err
	}
	for block, e := range t.batch.Stream(status.Context(ctx), 0, prompt, t.generate) {
		if block.Result != nil {
			result = block.Result
		}
		if err = e; err != nil {
			break
		}
		piece, _ := stops.Push(text.Push(block.Tokens[0]...))
		waiting += piece
		// What comes after the first token is compiling, which is shown where the text will stand.
		if blocks++; blocks == 1 {
			t.noteRewritten(wanted, result.Kept)
			continue
		}
		status.Close()
		if err = show(waiting); err != nil {
			break
		}
		waiting = ""
	}
	status.Close()
	if blocks == 0 {
		return said, result, err
	}
	rest, _ := stops.Push(text.Flush())
	if e := show(waiting + rest + stops.Flush()); err == nil {
		err = e
	}
	if _, e := io.WriteString(t.out, "\n"); err == nil {
		err = e
	}
	return said, result, err
}

// noteRewritten says so where the template writes what was said in another way than before.
func (t *talk) noteRewritten(held, kept int) {
	if again := held - kept; again > 0 && !t.told {
		t.told = true // it does so in every turn
		fmt.Fprintf(t.errs, "kvq: note: the chat template writes what was said differently now: %d tokens are read again\n", again)
	}
}

// reset is /reset.
func (t *talk) reset() {
	t.messages, t.written, t.before, t.last = nil, nil, "", nil
	t.batch.Forget()
}

// stats is /stats.
func (t *talk) stats() error {
	now, full, err := t.batch.Memory()
	if err != nil {
		return err
	}
	coded, err := t.batch.Coded()
	if err != nil {
		return err
	}
	held := len(t.batch.Held(0))
	if _, err := fmt.Fprintf(t.out, "tokens   %d of at most %d: %d in codes, %d exact\n", held, t.model.MaxPositions, coded[0], held-coded[0]); err != nil {
		return err
	}
	if plan := t.batch.Plan(); plan != nil {
		if _, err := fmt.Fprintf(t.out, "cache    %s, in full precision %s; room for %d tokens\n", cli.ByteCount(now.Total()), cli.ByteCount(full), plan.Shape().Capacity); err != nil {
			return err
		}
	}
	if t.last == nil {
		return nil
	}
	clock, all := t.last.Timing, t.batch.Timing()
	_, err = fmt.Fprintf(t.out, "answer   %d tokens, %.1f tokens/s; %d tokens kept, the others read in %.2f s\nall      %.1f tokens/s; compiling %.1f s\n",
		len(t.last.Tokens[0]), clock.StepsPerSecond(), t.last.Kept, clock.Prefill.Seconds(), all.StepsPerSecond(), all.Compile.Seconds())
	return err
}

// message is what a person or a pipe says, or why nothing more comes.
type message struct {
	text string
	err  error
}

// longestMessage bounds what is read for one message.
const longestMessage = 16 << 20

// readMessages gives messages as they are asked for. A backslash at the end of a line joins it with
// the next.
func readMessages(in io.Reader) <-chan message {
	out := make(chan message)
	go func() {
		lines := bufio.NewScanner(in)
		lines.Buffer(nil, longestMessage)
		text := ""
		for lines.Scan() {
			line, more := strings.CutSuffix(lines.Text(), `\`)
			if text += line; more {
				text += "\n"
				continue
			}
			out <- message{text: text}
			text = ""
		}
		if text != "" {
			out <- message{text: text}
		}
		err := lines.Err()
		if err == nil {
			err = io.EOF
		}
		out <- message{err: err}
	}()
	return out
}
