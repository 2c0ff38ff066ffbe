package main

import (
	"context"
	"fmt"
	"io"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/kvqbook/kvqbook/internal/cli"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama"
	"github.com/kvqbook/kvqbook/llama/evaluate"
	"github.com/kvqbook/kvqbook/llama/fit"
	"github.com/kvqbook/kvqbook/tokenizer"
)

func init() { register(newEvaluate) }

// evaluateFlags are those of evaluate.
type evaluateFlags struct {
	model cli.ModelFlags
	cache cli.CacheFlags
	texts textFiles
	json  bool
}

func newEvaluate() *cobra.Command {
	var f evaluateFlags
	c := &cobra.Command{
		Use:   "evaluate",
		Short: "Perplexity, KL divergence and top-1 agreement against the full-precision cache",
		Long: `evaluate lets the model read texts through the cache: the first --prefill tokens of each go in at once, the rest one given
token a step. Each prediction from there on is scored, and compared with that of a full-precision cache that runs beside it:
perplexity, mean KL divergence from the full-precision prediction in nats, and the share of tokens where both find the same
token most likely. All texts run as one batch; they may differ in length. Several presets, with commas, are compared in one table.

± is the standard error over tokens. Of the divergence there are the mean, and what 50, 90, 99 and 99.9 % of the tokens do not
exceed. The perplexity is compared with that in full precision token by token.`,
		Example: `  kvq evaluate
  kvq evaluate --preset tutorial,balanced,smallest
  kvq evaluate --text README.md --max-tokens 200
  kvq evaluate --text README.md --max-tokens 200 --preset smallest --json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return f.run(c) },
	}
	fs := c.Flags()
	f.model.Register(fs)
	f.model.RegisterDevices(fs)
	f.cache.Register(fs)
	f.texts.register(fs)
	cli.RegisterJSON(fs, &f.json)
	return c
}

func (f *evaluateFlags) run(c *cobra.Command) error {
	ctx, errs := c.Context(), c.ErrOrStderr()
	files, err := f.model.Open(c)
	if err != nil {
		return err
	}
	caches, err := f.cache.Configs(c.Flags(), files.Config())
	if err != nil {
		return err
	}
	texts, err := f.texts.read(c.InOrStdin(), files)
	if err != nil {
		return err
	}
	outcome := cli.OutcomeOf(ctx)
	unfinished := func() error { // half a text has no score worth telling
		if !f.json {
			return nil
		}
		return cli.PrintJSON(c.OutOrStdout(), evaluateJSON{Model: files.Path(), Prefill: f.texts.prefill, Rows: []evaluatedJSON{}, Interrupted: true})
	}
	outcome.OnInterrupt(func() { _ = unfinished() })

	status := f.model.Status(errs)
	defer status.Close()
	var model *cli.LoadedModel
	var results []*evaluate.Result
	err = func() error {
		var requests []fit.Request
		for _, cache := range caches {
			requests = append(requests, f.request(files.Config(), cache.Config, texts))
		}
		if model, err = f.model.Load(ctx, files, errs, requests...); err != nil {
			return err
		}
		reference, err := llama.NewGenerator(model.Model, kvq.Config{})
		if err != nil {
			return err
		}
		defer cli.Finalize(ctx, reference.Finalize)
		for _, cache := range caches {
			f.cache.NoteGroups(errs, c.Flags(), cache.Config, model.Config())
			cli.NoteForm(errs, model.Model, cache.Config)
			r, err := f.score(ctx, model.Model, reference, cache, texts, len(caches) > 1, status)
			if err != nil {
				return err
			}
			results = append(results, r)
		}
		return nil
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
		var list []evaluateJSON
		for i, r := range results {
			list = append(list, f.result(files.Path(), model, caches[i], texts, r))
		}
		switch {
		case f.json && len(list) == 1:
			return cli.PrintJSON(c.OutOrStdout(), list[0])
		case f.json:
			return cli.PrintJSON(c.OutOrStdout(), evaluateAllJSON{list})
		case len(list) == 1:
			return f.print(c.OutOrStdout(), list[0])
		}
		return printEvaluated(c.OutOrStdout(), caches, list)
	})
}

// request is the memory of the cache under test, with that of the reference beside it.
func (f *evaluateFlags) request(model llama.Config, config kvq.Config, texts [][]tokenizer.Token) fit.Request {
	r := fit.Request{Model: model, Cache: config, Beside: &kvq.Config{}, Batch: len(texts), Prompt: f.texts.prefill}
	for _, t := range texts {
		r.NewTokens = max(r.NewTokens, len(t)-f.texts.prefill)
	}
	return r
}

// score reads texts with a cache against the full-precision one, which runs beside it.
func (f *evaluateFlags) score(ctx context.Context, model *llama.Model, reference *llama.Generator, cache cli.NamedConfig, texts [][]tokenizer.Token, several bool,
	status *cli.Status) (*evaluate.Result, error) {
	tested, err := llama.NewGenerator(model, cache.Config)
	if err != nil {
		return nil, err
	}
	defer cli.Finalize(ctx, tested.Finalize)
	prefix := ""
	if several {
		prefix = cache.Name + ", "
	}
	progress := func(done, total int) error {
		status.Detail("%s%d of %d tokens", prefix, done, total)
		return nil
	}
	return evaluate.Score(status.Context(ctx), tested, texts, evaluate.Options{Reference: reference, Prefill: f.texts.prefill, Progress: progress})
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
	// standard errors, over tokens
	KLError    *float64 `json:"kl_error"`
	Ratio      *float64 `json:"perplexity_ratio"` // to that in full precision, compared token by token
	RatioError *float64 `json:"perplexity_ratio_error"`
	// what so many of the tokens do not exceed
	KLMedian  *float64 `json:"kl_median"`
	KL90      *float64 `json:"kl_90"`
	KL99      *float64 `json:"kl_99"`
	KL999     *float64 `json:"kl_99_9"`
	KLLargest *float64 `json:"kl_max"`
}

func newEvaluatedJSON(text string, s, reference evaluate.Scores) evaluatedJSON {
	ratio, ratioError := s.PerplexityRatio(reference)
	quantile := func(q float64) *float64 { return cli.NumberOrNull(s.KLQuantile(q)) }
	return evaluatedJSON{
		Text: text, Tokens: len(s.NLL), NLL: cli.NumberOrNull(s.MeanNLL()), Perplexity: cli.NumberOrNull(s.Perplexity()),
		KL: cli.NumberOrNull(s.MeanKL()), Agreement: cli.NumberOrNull(s.Agreement()), FullPerplexity: cli.NumberOrNull(reference.Perplexity()),
		KLError: cli.NumberOrNull(s.KLError()), Ratio: cli.NumberOrNull(ratio), RatioError: cli.NumberOrNull(ratioError),
		KLMedian: quantile(0.5), KL90: quantile(0.9), KL99: quantile(0.99), KL999: quantile(0.999), KLLargest: quantile(1),
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

	bits cli.Bits
}

// evaluateAllJSON is what it prints with several presets.
type evaluateAllJSON struct {
	Caches []evaluateJSON `json:"caches"`
}

func (f *evaluateFlags) result(path string, model *cli.LoadedModel, named cli.NamedConfig, texts [][]tokenizer.Token, r *evaluate.Result) evaluateJSON {
	config := named.Config
	j := evaluateJSON{Model: path, Device: model.Device, Prefill: f.texts.prefill, Timing: newTimingJSON(model.Took, r.Timing, len(texts))}
	for i, s := range r.Rows {
		j.Rows = append(j.Rows, newEvaluatedJSON(f.texts.names()[i], s, r.Reference[i]))
	}
	all, cache := newEvaluatedJSON("", r.All(), r.AllReference()), evaluatedCache(model, config, texts, r)
	j.All, j.Cache = &all, &cache
	j.bits, _ = cli.BitsOf(config, model.Config(), model.DType()) // its plan was made before
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

func (f *evaluateFlags) print(w io.Writer, j evaluateJSON) error {
	t := cli.NewTable(w, table.Row{"text", "tokens", "perplexity", "in full precision", "KL", "top-1"})
	row := func(name string, r evaluatedJSON) table.Row {
		return table.Row{name, r.Tokens, number(r.Perplexity, "%.4f"), number(r.FullPerplexity, "%.4f"), number(r.KL, "%.6f"), percent(r.Agreement)}
	}
	for i, r := range j.Rows {
		t.AppendRow(row(f.texts.names()[i], r))
	}
	t.AppendSeparator()
	t.AppendRow(row("all", *j.All))
	t.Render()
	a := j.All
	fmt.Fprintf(w, "KL %s ± %s; median %s, 90 %% %s, 99 %% %s, 99.9 %% %s, largest %s\n", number(a.KL, "%.6f"), number(a.KLError, "%.6f"),
		number(a.KLMedian, "%.6f"), number(a.KL90, "%.6f"), number(a.KL99, "%.6f"), number(a.KL999, "%.6f"), number(a.KLLargest, "%.6f"))
	fmt.Fprintf(w, "perplexity %s ± %s of that in full precision\n", number(a.Ratio, "%.4f"), number(a.RatioError, "%.4f"))
	line := "cache " + j.bits.Note(j.Cache.Config)
	if j.bits.Note(j.Cache.Config) == "" {
		line = fmt.Sprintf("cache %s: %s bits a value", j.Cache.Config, j.bits)
	}
	_, err := fmt.Fprintf(w, "%s; %s\n", line, j.Timing)
	return err
}

// printEvaluated compares caches on all texts together.
func printEvaluated(w io.Writer, caches []cli.NamedConfig, list []evaluateJSON) error {
	t := cli.NewTable(w, table.Row{"cache", "bits", "KL", "±", "median", "99 %", "largest", "top-1", "perplexity", "±"})
	for i, j := range list {
		a := j.All
		t.AppendRow(table.Row{caches[i].Name, j.bits.String(), number(a.KL, "%.5f"), number(a.KLError, "%.5f"), number(a.KLMedian, "%.5f"),
			number(a.KL99, "%.4f"), number(a.KLLargest, "%.3f"), percent(a.Agreement), number(a.Ratio, "x %.4f"), number(a.RatioError, "%.4f")})
	}
	t.Render()
	for i, j := range list {
		if note := j.bits.Note(caches[i].Name); note != "" {
			fmt.Fprintln(w, note)
		}
	}
	first := list[0].All
	_, err := fmt.Fprintf(w, "%d tokens scored; perplexity in full precision %s\n", first.Tokens, number(first.FullPerplexity, "%.4f"))
	return err
}

// number prints what may not be a number.
func number(x *float64, format string) string {
	if x == nil {
		return "-"
	}
	return fmt.Sprintf(format, *x)
}

// percent prints a share.
func percent(x *float64) string {
	if x == nil {
		return "-"
	}
	return fmt.Sprintf("%.2f %%", 100**x)
}
