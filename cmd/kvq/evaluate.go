package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/kvqbook/kvqbook/internal/cli"
	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama"
	"github.com/kvqbook/kvqbook/llama/evaluate"
	"github.com/kvqbook/kvqbook/llama/fit"
	"github.com/kvqbook/kvqbook/tokenizer"
)

func init() { register(newEvaluate) }

// evaluateFlags are those of evaluate.
type evaluateFlags struct {
	model              cli.ModelFlags
	cache              cli.CacheFlags
	texts              []string
	prefill, maxTokens int
	json               bool
}

func newEvaluate() *cobra.Command {
	var f evaluateFlags
	c := &cobra.Command{
		Use:   "evaluate",
		Short: "Perplexity, KL divergence and top-1 agreement against the full-precision cache",
		Long: `evaluate lets the model read texts through the cache: the first --prefill tokens of each go in at once, the rest one given
token a step. Each prediction from there on is scored, and compared with that of a full-precision cache that runs beside it:
perplexity, mean KL divergence from the full-precision prediction in nats, and the share of tokens where both find the same
token most likely. All texts run as one batch; they may differ in length.`,
		Example: `  kvq evaluate --text README.md --max-tokens 200
  kvq evaluate --text README.md --max-tokens 200 --preset smallest --json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return f.run(c) },
	}
	fs := c.Flags()
	f.model.Register(fs)
	f.model.RegisterDevices(fs)
	f.cache.Register(fs)
	fs.StringArrayVar(&f.texts, "text", nil, "`file` with a text to read; repeat it for a batch")
	fs.IntVar(&f.prefill, "prefill", 64, "tokens of each text that go in at once and are not scored")
	fs.IntVar(&f.maxTokens, "max-tokens", 0, "read so many tokens of each text at most, those of --prefill included (0: all)")
	cli.RegisterJSON(fs, &f.json)
	return c
}

func (f *evaluateFlags) run(c *cobra.Command) error {
	ctx, errs := c.Context(), c.ErrOrStderr()
	files, err := f.model.Open(c)
	if err != nil {
		return err
	}
	config, err := f.cache.Config(c.Flags(), files.Config())
	if err != nil {
		return err
	}
	tok, err := files.Tokenizer()
	if err != nil {
		return err
	}
	texts, err := f.read(tok, files.Config())
	if err != nil {
		return err
	}
	outcome := cli.OutcomeOf(ctx)
	unfinished := func() error { // half a text has no score worth telling
		if !f.json {
			return nil
		}
		return cli.PrintJSON(c.OutOrStdout(), evaluateJSON{Model: files.Path(), Prefill: f.prefill, Rows: []evaluatedJSON{}, Interrupted: true})
	}
	outcome.OnInterrupt(func() { _ = unfinished() })

	status := f.model.Status(errs)
	defer status.Close()
	var model *cli.LoadedModel
	r, err := func() (*evaluate.Result, error) {
		if model, err = f.model.Load(ctx, files, errs, f.request(files.Config(), config, texts)); err != nil {
			return nil, err
		}
		f.cache.NoteGroups(errs, c.Flags(), config, model.Config().HeadDim)
		cli.NoteForm(errs, model.Model, config)
		return score(ctx, model.Model, config, texts, f.prefill, status)
	}()
	if model != nil {
		defer model.Close(ctx)
	}
	status.Close()
	if err != nil && ctx.Err() != nil {
		_ = outcome.Print(unfinished)
	}
	if err != nil {
		return err
	}
	return outcome.Print(func() error {
		if f.json {
			return cli.PrintJSON(c.OutOrStdout(), f.result(files.Path(), model, config, texts, r))
		}
		return f.print(c.OutOrStdout(), model, config, texts, r)
	})
}

// request is the memory of the cache under test, with that of the reference beside it.
func (f *evaluateFlags) request(model llama.Config, config kvq.Config, texts [][]tokenizer.Token) fit.Request {
	r := fit.Request{Model: model, Cache: config, Beside: &kvq.Config{}, Batch: len(texts), Prompt: f.prefill}
	for _, t := range texts {
		r.NewTokens = max(r.NewTokens, len(t)-f.prefill)
	}
	return r
}

// read returns the tokens of each text.
func (f *evaluateFlags) read(tok *tokenizer.Tokenizer, model llama.Config) ([][]tokenizer.Token, error) {
	if len(f.texts) == 0 {
		return nil, usererr.New("no text to read, want --text FILE at least once")
	}
	if f.prefill < 1 {
		return nil, usererr.New("--prefill %d, want at least 1", f.prefill)
	}
	if f.maxTokens != 0 && f.maxTokens <= f.prefill {
		return nil, usererr.New("--max-tokens %d, want more than the %d tokens of --prefill, or 0 for all", f.maxTokens, f.prefill)
	}
	var list [][]tokenizer.Token
	for _, path := range f.texts {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, usererr.New("--text: %w", err)
		}
		text, err := cli.Text("--text "+path, data)
		if err != nil {
			return nil, err
		}
		ids := tok.Encode(text)
		if f.maxTokens > 0 && len(ids) > f.maxTokens {
			ids = ids[:f.maxTokens]
		}
		switch n := len(ids); {
		case n <= f.prefill:
			return nil, usererr.New("--text %s has %d tokens, want more than the %d of --prefill", path, n, f.prefill)
		case n > model.MaxPositions:
			return nil, usererr.New("--text %s has %d tokens, the model reads at most %d: cap it with --max-tokens", path, n, model.MaxPositions)
		}
		list = append(list, ids)
	}
	return list, nil
}

// score reads texts with a cache against the full-precision one, which runs beside it.
func score(ctx context.Context, model *llama.Model, config kvq.Config, texts [][]tokenizer.Token, prefill int, status *cli.Status) (*evaluate.Result, error) {
	reference, err := llama.NewGenerator(model, kvq.Config{})
	if err != nil {
		return nil, err
	}
	tested, err := llama.NewGenerator(model, config)
	if err != nil {
		return nil, err
	}
	defer func() {
		if ctx.Err() == nil { // else calls that nobody waits for may be under way
			reference.Finalize()
			tested.Finalize()
		}
	}()
	progress := func(done, total int) error {
		status.Detail("%d of %d tokens", done, total)
		return nil
	}
	return evaluate.Score(status.Context(ctx), tested, texts, evaluate.Options{Reference: reference, Prefill: prefill, Progress: progress})
}

// evaluatedJSON is the scores of one text, or of all.
type evaluatedJSON struct {
	Text           string   `json:"text,omitempty"`
	Tokens         int      `json:"tokens"` // scored ones
	NLL            *float64 `json:"nll_mean"`
	Perplexity     *float64 `json:"perplexity"`
	KL             *float64 `json:"kl_mean"`
	Agreement      *float64 `json:"top1_agreement"`
	FullPerplexity *float64 `json:"full_precision_perplexity"`
}

func newEvaluatedJSON(text string, s, reference evaluate.Scores) evaluatedJSON {
	return evaluatedJSON{
		Text: text, Tokens: len(s.NLL), NLL: cli.NumberOrNull(s.MeanNLL()), Perplexity: cli.NumberOrNull(s.Perplexity()),
		KL: cli.NumberOrNull(s.MeanKL()), Agreement: cli.NumberOrNull(s.Agreement()), FullPerplexity: cli.NumberOrNull(reference.Perplexity()),
	}
}

// evaluateJSON is what evaluate prints with --json.
type evaluateJSON struct {
	Model       string          `json:"model"`
	Device      string          `json:"device"`
	Prefill     int             `json:"prefill"`
	Rows        []evaluatedJSON `json:"rows"`
	All         *evaluatedJSON  `json:"all"`   // null when interrupted
	Cache       *cacheJSON      `json:"cache"` // null when interrupted
	Timing      timingJSON      `json:"timing"`
	Interrupted bool            `json:"interrupted,omitempty"`
}

func (f *evaluateFlags) result(path string, model *cli.LoadedModel, config kvq.Config, texts [][]tokenizer.Token, r *evaluate.Result) evaluateJSON {
	j := evaluateJSON{Model: path, Device: model.Device, Prefill: f.prefill, Timing: newTimingJSON(model.Took, r.Timing, len(texts))}
	for i, s := range r.Rows {
		j.Rows = append(j.Rows, newEvaluatedJSON(f.texts[i], s, r.Reference[i]))
	}
	all, cache := newEvaluatedJSON("", r.All(), r.AllReference()), evaluatedCache(model, config, texts, r)
	j.All, j.Cache = &all, &cache
	return j
}

// evaluatedCache describes the cache under test, and a full-precision one for as many tokens.
func evaluatedCache(model *cli.LoadedModel, config kvq.Config, texts [][]tokenizer.Token, r *evaluate.Result) cacheJSON {
	j := cacheJSON{Config: config.String(), Bytes: r.Cache.Total(), Parts: r.Cache}
	longest := 0
	for _, t := range texts {
		longest = max(longest, len(t))
	}
	// Both plans were made before, with other sizes.
	if plan, err := cli.PlanFor(config, model.Config(), len(texts), longest, model.DType()); err == nil {
		bits := plan.BitsPerValue()
		j.BitsPerValue = &bits
	}
	if plan, err := cli.PlanFor(kvq.Config{}, model.Config(), len(texts), longest, model.DType()); err == nil {
		j.FullBytes = plan.Memory().Total()
	}
	return j
}

func (f *evaluateFlags) print(w io.Writer, model *cli.LoadedModel, config kvq.Config, texts [][]tokenizer.Token, r *evaluate.Result) error {
	t := cli.NewTable(w, 0, table.Row{"text", "tokens", "perplexity", "in full precision", "KL", "top-1"})
	row := func(name string, s, reference evaluate.Scores) table.Row {
		return table.Row{name, len(s.NLL), fmt.Sprintf("%.4f", s.Perplexity()), fmt.Sprintf("%.4f", reference.Perplexity()),
			fmt.Sprintf("%.6f", s.MeanKL()), fmt.Sprintf("%.2f %%", 100*s.Agreement())}
	}
	for i, s := range r.Rows {
		t.AppendRow(row(f.texts[i], s, r.Reference[i]))
	}
	t.AppendSeparator()
	t.AppendRow(row("all", r.All(), r.AllReference()))
	t.Render()
	cache := evaluatedCache(model, config, texts, r)
	line := "cache " + cache.Config
	if cache.BitsPerValue != nil {
		line += fmt.Sprintf(": %.4g bits a value", *cache.BitsPerValue)
	}
	_, err := fmt.Fprintf(w, "%s; %s\n", line, newTimingJSON(model.Took, r.Timing, len(texts)))
	return err
}
