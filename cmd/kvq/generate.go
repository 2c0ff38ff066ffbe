package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/kvqbook/kvqbook/internal/cli"
	"github.com/kvqbook/kvqbook/llama"
	"github.com/kvqbook/kvqbook/tokenizer"
)

func init() { register(newGenerate) }

func newGenerate() *cobra.Command {
	var f textFlags
	c := &cobra.Command{
		Use:   "generate [TEXT]",
		Short: "Continue texts, printed as they come",
		Long: `generate continues each prompt and prints the text as it comes. Several prompts run as one batch; their texts are
printed whole, each with its number, and while they grow a terminal shows the end of each.

--save-cache writes the cache of the prompt to a file, with the prompt's text. With --load-cache the text given goes on
from there: only what is new is read. A prompt that was saved with --chat stays one message: the text follows it after
an empty line. The cache is the one that was saved, whatever its flags were; the model has to be the same.

Ctrl-C ends it with the text so far. In JSON, input_ids is the padded row, output_ids and text are the new tokens alone.`,
		Example: `  kvq generate
  kvq generate "Hello, how are you?" -n 40
  kvq generate "What is a key/value cache?" --chat --system "Answer in one sentence." -n 60 --preset smallest
  kvq generate "Once upon a time" --cache full --do-sample --temperature 0.8 --seed 7
  kvq generate --prompt "Hello, how are you?" --prompt "The capital of France is"
  kvq generate -f long.txt --save-cache long.cache -n 0
  kvq generate "What is it about?" --load-cache long.cache -n 60
  echo "The capital of France is" | kvq generate --prompt - --json
  kvq generate --devices 3`,
		Args: oneText,
		RunE: func(c *cobra.Command, args []string) error { return f.runGenerate(c, args) },
	}
	f.register(c.Flags())
	f.kept.register(c.Flags())
	return c
}

func (f *textFlags) runGenerate(c *cobra.Command, args []string) error {
	if err := f.prompts.take(args); err != nil {
		return err
	}
	if err := f.kept.take(c, f); err != nil {
		return err
	}
	ctx, out, errs := c.Context(), c.OutOrStdout(), c.ErrOrStderr()
	request, err := f.request(c)
	if err != nil {
		return err
	}
	request.only = true
	if !f.kept.given() {
		f.model.Ready = func(m *llama.Model) error { return request.prepare(m, request.cache) }
		defer request.free(ctx)
	}
	g := &generation{request: request, texts: startTexts(request.tok, request.batch, request.generate.StopStrings...), display: newDisplay(out, f.before(request.batch))}
	if f.json {
		g.display = quiet{}
	}
	status := f.model.Status(errs)
	defer status.Close()
	finish := func() error { status.Close(); return g.finish(out, f.json, ctx.Err() != nil) }
	outcome := cli.OutcomeOf(ctx)
	outcome.OnInterrupt(func() { _ = finish() })

	g.result, err = func() (*llama.Result, error) {
		model, err := f.model.Load(ctx, request.files, errs, request.memoryRequest(request.cache))
		if err != nil {
			return nil, err
		}
		defer model.Close(ctx)
		if f.kept.saved == nil || f.cache.Given(c.Flags()) { // else the flags say nothing of the cache
			f.cache.NoteGroups(errs, c.Flags(), request.cache, model.Config())
		}
		cli.NoteForm(errs, model.Model, request.cache)
		g.loaded = model
		onBlock := func(fresh [][]tokenizer.Token) error {
			if g.begun && cli.IsTerminal(out) && !f.json {
				status.Close() // the text moves from here on
			}
			return outcome.Update(func() error {
				err := g.add(fresh)
				status.Detail("%d of at most %d tokens", len(g.texts.ids[0]), request.generate.MaxNewTokens)
				return err
			})
		}
		if f.kept.given() {
			return f.kept.run(status.Context(ctx), request, f, model, onBlock)
		}
		return request.run(status.Context(ctx), model, request.cache, onBlock)
	}()
	status.Close()
	if err != nil && ctx.Err() == nil {
		if !f.json {
			_ = outcome.Print(g.end)
		}
		return err
	}
	if printErr := outcome.Print(finish); printErr != nil {
		return printErr
	}
	if err == nil {
		text := fmt.Sprintf("%s; cache %s: %s", newTimingJSON(g.loaded.Took, g.result.Timing, len(g.texts.ids)), request.cache, cli.ByteCount(g.result.Cache.Total()))
		if request.cache.Quantized() {
			text += fmt.Sprintf(", in full precision %s (room for %d tokens a row)", cli.ByteCount(g.result.FullCacheBytes), g.result.Slots)
		}
		cli.Note(errs, "%s", text)
		f.kept.tell(errs)
		warnIfExact(errs, request.cache, g.result)
	}
	return err
}

// generation is a run of generate, as far as it is. Its methods are called with the lock of
// lastWords.
type generation struct {
	request *textRequest
	texts   *newTexts
	display display
	loaded  *cli.LoadedModel // nil until then
	result  *llama.Result    // nil until then
	begun   bool             // the first tokens are there
	held    []string         // their text, until it is shown
}

// add takes the new tokens of a call. Those of the first one, which reads the prompt, wait for the
// next: what comes between is compiling, which is shown where the text will stand.
func (g *generation) add(fresh [][]tokenizer.Token) error {
	texts := g.texts.add(fresh)
	if !g.begun {
		g.begun, g.held = true, texts
		return nil
	}
	if err := g.release(); err != nil {
		return err
	}
	return g.display.add(texts)
}

// release shows what has waited.
func (g *generation) release() error {
	held := g.held
	if g.held = nil; held == nil {
		return nil
	}
	return g.display.add(held)
}

// finish prints what is left to print.
func (g *generation) finish(out io.Writer, asJSON, interrupted bool) error {
	if !asJSON {
		return g.end()
	}
	g.texts.end()
	return cli.PrintJSON(out, g.json(interrupted))
}

// end completes the texts on the display, where there are any.
func (g *generation) end() error {
	if len(g.texts.ids[0]) == 0 {
		return nil
	}
	if err := g.release(); err != nil {
		return err
	}
	if err := g.display.add(g.texts.end()); err != nil {
		return err
	}
	return g.display.end()
}

// generateJSON is what generate prints with --json.
type generateJSON struct {
	Model   string          `json:"model"`
	Device  string          `json:"device"`
	Devices []string        `json:"devices"` // those that the model is sharded over
	Prompts []generatedJSON `json:"prompts"`
	Cache   *cacheJSON      `json:"cache"` // null when interrupted before there was one
	Timing  timingJSON      `json:"timing"`
	// null when interrupted before the model was loaded
	Memory      *cli.PeakJSON    `json:"memory"`
	Stop        llama.StopReason `json:"stop,omitempty"`
	Kept        int              `json:"kept_tokens,omitempty"` // of --load-cache
	Interrupted bool             `json:"interrupted,omitempty"`
}

func (g *generation) json(interrupted bool) generateJSON {
	j := generateJSON{Model: g.request.files.Path(), Devices: []string{}, Interrupted: interrupted, Cache: newCacheJSON(g.request.cache, g.request.batch, g.result)}
	for i, prompt := range g.request.batch.prompts {
		j.Prompts = append(j.Prompts, generatedJSON{prompt, g.request.batch.IDs[i], g.request.batch.Mask[i], g.texts.ids[i], g.texts.text(i)})
	}
	var timing llama.Timing
	if g.result != nil {
		timing, j.Stop, j.Kept = g.result.Timing, g.result.Stop, g.result.Kept
	}
	if g.loaded != nil {
		j.Device, j.Devices = g.loaded.Device, g.loaded.Devices
		j.Timing = newTimingJSON(g.loaded.Took, timing, len(g.texts.ids))
		j.Memory = g.loaded.Peaks(g.request.files)
	}
	return j
}

// generatedJSON is one row of generate's output.
type generatedJSON struct {
	Prompt    string            `json:"prompt"`
	InputIDs  []tokenizer.Token `json:"input_ids"`      // with padding
	Mask      []int32           `json:"attention_mask"` // 1 for a token, 0 for padding
	OutputIDs []tokenizer.Token `json:"output_ids"`     // new tokens alone
	Text      string            `json:"text"`           // of the new tokens
}
