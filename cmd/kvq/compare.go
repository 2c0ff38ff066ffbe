package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/kvqbook/kvqbook/docs/texts"
	"github.com/kvqbook/kvqbook/internal/cli"
	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama"
	"github.com/kvqbook/kvqbook/tokenizer"
)

func init() { register(newCompare) }

// partMark stands in front of the first token that differs.
const partMark = "▶"

func newCompare() *cobra.Command {
	var f textFlags
	c := &cobra.Command{
		Use:   "compare [TEXT]",
		Short: "The tutorial: texts from a quantized and a full-precision cache, side by side",
		Long: `compare generates the same batch twice, with a full-precision cache and with the quantized one that the flags describe
(without any, the tutorial's: backend quanto, 4 bits, groups of 32, residual length 64), and prints the texts side by side.
` + partMark + ` marks the first token that differs. Below are the bytes of both caches by part.

With --preset and without a prompt, the beginning of a built-in story goes on for 100 tokens: presets keep the newest 64
tokens exact, so a short text would show nothing. The line below each text says how many of its tokens were in codes.

Unlike generate, compare lets no text end before 20 new tokens, as the tutorial does; --min-new-tokens changes that.

In JSON, part_at is the index into output_ids of the first token that differs, counted from 0; null if none does.`,
		Example: `  kvq compare
  kvq compare --max-new-tokens 100 --nbits 2
  kvq compare "Hello, how are you?" --preset smallest --json`,
		Args: oneText,
		RunE: func(c *cobra.Command, args []string) error { return f.runCompare(c, args) },
	}
	f.register(c.Flags())
	// The full-precision cache runs in any case: the flag has one value left, which is not worth a
	// line of help.
	c.Flags().Lookup(cli.KindFlag).Hidden = true
	return c
}

// tutorialTokens is the tutorial's min_new_tokens: texts that end early have nothing left to
// compare.
const tutorialTokens = 20

// presetTokens are the new tokens of a comparison with a preset, unless told otherwise.
const presetTokens = 100

// presetDefaults takes a text that is longer than the window of a preset where no prompt was given.
func (f *textFlags) presetDefaults(fs *pflag.FlagSet) {
	if f.prompts.given() {
		return
	}
	f.prompts.prompts = []string{storyBeginning()}
	if !fs.Changed("max-new-tokens") {
		f.generate.MaxNewTokens = presetTokens
	}
}

// storyBeginning is the first half of the built-in story, up to the end of a paragraph.
func storyBeginning() string {
	half := texts.Story[:len(texts.Story)/2]
	return half[:strings.LastIndex(half, "\n\n")]
}

func (f *textFlags) runCompare(c *cobra.Command, args []string) error {
	if err := f.prompts.take(args); err != nil {
		return err
	}
	ctx, out, errs := c.Context(), c.OutOrStdout(), c.ErrOrStderr()
	if f.cache.Kind == "full" || f.cache.Preset() == cli.FullName {
		return usererr.New("full precision: compare runs the full-precision cache anyway, beside a quantized one; want the flags of that one")
	}
	if name := f.cache.Preset(); name != "" && name != cli.TutorialName {
		f.presetDefaults(c.Flags())
	}
	if !c.Flags().Changed("min-new-tokens") {
		f.generate.MinNewTokens = min(tutorialTokens, f.generate.MaxNewTokens)
	}
	request, err := f.request(c)
	if err != nil {
		return err
	}
	cmp := &comparison{request: request, devices: []string{}, tutorial: !f.prompts.given(), sides: [2]*sideRun{
		{config: kvq.Config{}, texts: startTexts(request.tok, request.batch, request.generate.StopStrings...)},
		{config: request.cache, texts: startTexts(request.tok, request.batch, request.generate.StopStrings...)},
	}}
	outcome := cli.OutcomeOf(ctx)
	status := f.model.Status(errs)
	defer status.Close()
	finish := func() error {
		status.Close()
		for _, s := range cmp.sides {
			s.texts.end()
		}
		if f.json {
			return cli.PrintJSON(out, cmp.json(ctx.Err() != nil))
		}
		return cmp.print(out, f.before(request.batch))
	}
	outcome.OnInterrupt(func() { _ = finish() })

	f.model.Ready = func(m *llama.Model) error { return request.prepare(m, cmp.sides[0].config) }
	defer request.free(ctx)
	err = func() error {
		model, err := f.model.Load(ctx, request.files, errs, request.memoryRequest(kvq.Config{}), request.memoryRequest(request.cache))
		if err != nil {
			return err
		}
		defer model.Close(ctx)
		f.cache.NoteGroups(errs, c.Flags(), request.cache, model.Config())
		cli.NoteForm(errs, model.Model, request.cache)
		cmp.device, cmp.devices, cmp.load = model.Device, model.Devices, model.Took
		for _, s := range cmp.sides {
			cli.Note(errs, "generating with the cache %s", s.config)
			if err := s.run(ctx, status, request, model, outcome); err != nil {
				return err
			}
			status.Clear()
		}
		return nil
	}()
	err = outcome.End(ctx, err, finish)
	if err == nil {
		warnIfExact(errs, request.cache, cmp.sides[1].result)
	}
	return err
}

// comparison is a run of compare, as far as it is.
type comparison struct {
	request *textRequest
	device  string
	devices []string
	load    time.Duration
	sides   [2]*sideRun // full precision, quantized
	// the tutorial's own prompts: then its own lines are printed too
	tutorial bool
}

// sideRun is the batch with one of the caches.
type sideRun struct {
	config kvq.Config
	texts  *newTexts
	result *llama.Result // nil until then
}

func (s *sideRun) run(ctx context.Context, status *cli.Status, request *textRequest, model *cli.LoadedModel, outcome *cli.Outcome) (err error) {
	s.result, err = request.run(status.Context(ctx), model, s.config, func(fresh [][]tokenizer.Token) error {
		return outcome.Update(func() error {
			s.texts.add(fresh)
			status.Detail("%d of at most %d tokens", len(s.texts.ids[0]), request.generate.MaxNewTokens)
			return nil
		})
	})
	return err
}

// done tells whether the side ran to its end, so that a row that is shorter than its counterpart
// did end there.
func (s *sideRun) done() bool {
	return s.result != nil && s.result.Stop != llama.StopCancelled && s.result.Stop != llama.StopFailed
}

// partAt is the index of the first new token of a row that differs, -1 if none does so far.
func (c *comparison) partAt(row int) int {
	full, quantized := c.sides[0].texts.ids[row], c.sides[1].texts.ids[row]
	n := min(len(full), len(quantized))
	for i := range n {
		if full[i] != quantized[i] {
			return i
		}
	}
	if len(full) != len(quantized) && c.sides[0].done() && c.sides[1].done() {
		return n // one of them ended
	}
	return -1
}

func (c *comparison) print(w io.Writer, before []string) error {
	t := cli.NewTable(w, table.Row{c.sides[0].config.String(), c.sides[1].config.String()})
	t.SeparateRows()
	for row := range before {
		var cells table.Row
		for _, s := range c.sides {
			cells = append(cells, cli.Printable(endOf(before[row])+marked(s.texts.pieces[row], c.partAt(row))))
		}
		t.AppendRow(cells)
	}
	t.Render()
	for row := range before {
		if _, err := fmt.Fprintf(w, "[%d] %s%s\n", row+1, c.verdict(row), c.coded(row)); err != nil {
			return err
		}
	}
	for _, s := range []*sideRun{c.sides[1], c.sides[0]} {
		if c.tutorial && s.done() {
			fmt.Fprintf(w, "text with %s cache: %q\n", s.kind(), c.request.tok.BatchDecode(s.rows(c.request.batch), false))
		}
	}
	full, quantized := c.sides[0].result, c.sides[1].result
	if full == nil || quantized == nil || quantized.Cache.Total() == 0 {
		return nil
	}
	fmt.Fprintln(w)
	bytes := cli.NewTable(w, table.Row{fmt.Sprintf("bytes, room for\n%d tokens a row", quantized.Slots), c.sides[0].config.String(), c.sides[1].config.String()})
	q, f := parts(quantized.Cache), parts(full.Cache)
	for i := range f {
		if f[i].bytes != 0 || q[i].bytes != 0 {
			bytes.AppendRow(table.Row{f[i].name, cli.ByteCount(f[i].bytes), cli.ByteCount(q[i].bytes)})
		}
	}
	bytes.AppendSeparator()
	bytes.AppendRow(table.Row{"all", cli.ByteCount(full.Cache.Total()), cli.ByteCount(quantized.Cache.Total())})
	bytes.Render()
	for _, s := range c.sides {
		if _, err := fmt.Fprintf(w, "%s: %s\n", s.config, newTimingJSON(c.load, s.result.Timing, len(before))); err != nil {
			return err
		}
	}
	return nil
}

// shownOfPrompt is how much of a long prompt stands in front of its texts.
const shownOfPrompt = 240

// endOf is a prompt, or the end of one that would push its texts off the screen.
func endOf(prompt string) string {
	runes := []rune(prompt)
	if len(runes) <= shownOfPrompt {
		return prompt
	}
	_, words, _ := strings.Cut(string(runes[len(runes)-shownOfPrompt:]), " ") // begins with a whole word
	return "… " + words
}

// kind is what the tutorial calls the cache.
func (s *sideRun) kind() string {
	if s.config.Quantized() {
		return "quant"
	}
	return "full-precision"
}

// rows are the padded prompts with the new tokens behind them.
func (s *sideRun) rows(b *batch) [][]tokenizer.Token {
	out := make([][]tokenizer.Token, len(b.IDs))
	for i := range out {
		out[i] = slices.Concat(b.IDs[i], s.result.Tokens[i])
	}
	return out
}

// marked joins the pieces of a text, with the mark in front of one of them (-1: none).
func marked(pieces []string, at int) string {
	if at < 0 {
		return strings.Join(pieces, "")
	}
	at = min(at, len(pieces))
	return strings.Join(pieces[:at], "") + partMark + strings.Join(pieces[at:], "")
}

// verdict says where a row's texts part.
func (c *comparison) verdict(row int) string {
	full, quantized := c.sides[0].texts, c.sides[1].texts
	at := c.partAt(row)
	if at < 0 {
		n := min(len(full.ids[row]), len(quantized.ids[row]))
		if !c.sides[0].done() || !c.sides[1].done() {
			return fmt.Sprintf("the same %d tokens before the interruption", n)
		}
		return fmt.Sprintf("the same %d tokens", n)
	}
	piece := func(r *newTexts) string {
		if at >= len(r.ids[row]) {
			return "the end"
		}
		return fmt.Sprintf("%q", r.pieces[row][at])
	}
	return fmt.Sprintf("they part at new token %d: %s in full precision, %s quantized", at+1, piece(full), piece(quantized))
}

// coded says how much of a row the quantized cache had in codes, "" where that is not known.
func (c *comparison) coded(row int) string {
	r := c.sides[1].result
	if r == nil || len(r.CodedTokens) == 0 {
		return ""
	}
	return fmt.Sprintf("; %d of %d tokens in codes", r.CodedTokens[row], cached(c.request.batch, r)[row])
}

// part is one of the parts of a cache's memory.
type part struct {
	name  string
	bytes int64
}

// parts lists the parts of m in the order in which they are told.
func parts(m kvq.Memory) []part {
	return []part{
		{"keys and values", m.Full}, {"codes", m.Codes}, {"scales", m.Scales}, {"zero points", m.Zeros},
		{"window of recent tokens", m.Window}, {"sinks", m.Sinks}, {"indices", m.Index}, {"metric of feedback", m.Metric}, {"metric that rows share", m.SharedMetric},
	}
}

// compareJSON is what compare prints with --json.
type compareJSON struct {
	Model       string            `json:"model"`
	Device      string            `json:"device"`
	Devices     []string          `json:"devices"` // those that the model is sharded over
	Prompts     []comparedJSON    `json:"prompts"`
	Cache       *cacheJSON        `json:"cache"` // null when interrupted before both were there
	Timing      compareTimingJSON `json:"timing"`
	Interrupted bool              `json:"interrupted,omitempty"`
}

type comparedJSON struct {
	Prompt    string            `json:"prompt"`
	InputIDs  []tokenizer.Token `json:"input_ids"`
	Mask      []int32           `json:"attention_mask"`
	Full      textJSON          `json:"full"`
	Quantized textJSON          `json:"quantized"`
	PartAt    *int              `json:"part_at"`
}

type textJSON struct {
	OutputIDs []tokenizer.Token `json:"output_ids"`
	Text      string            `json:"text"`
}

type compareTimingJSON struct {
	Load      float64     `json:"load_s"`
	Full      *timingJSON `json:"full"`
	Quantized *timingJSON `json:"quantized"`
}

func (c *comparison) json(interrupted bool) compareJSON {
	j := compareJSON{Model: c.request.files.Path(), Device: c.device, Devices: c.devices, Interrupted: interrupted, Timing: compareTimingJSON{Load: c.load.Seconds()}}
	full, quantized := c.sides[0], c.sides[1]
	for i, prompt := range c.request.batch.prompts {
		p := comparedJSON{Prompt: prompt, InputIDs: c.request.batch.IDs[i], Mask: c.request.batch.Mask[i],
			Full: textJSON{full.texts.ids[i], full.texts.text(i)}, Quantized: textJSON{quantized.texts.ids[i], quantized.texts.text(i)}}
		if at := c.partAt(i); at >= 0 {
			p.PartAt = &at
		}
		j.Prompts = append(j.Prompts, p)
	}
	for _, s := range []struct {
		side   *sideRun
		timing **timingJSON
	}{{full, &j.Timing.Full}, {quantized, &j.Timing.Quantized}} {
		if s.side.result != nil {
			t := newTimingJSON(c.load, s.side.result.Timing, len(j.Prompts))
			*s.timing = &t
		}
	}
	if full.result != nil {
		if j.Cache = newCacheJSON(quantized.config, c.request.batch, quantized.result); j.Cache != nil {
			j.Cache.FullParts = &full.result.Cache
		}
	}
	return j
}
