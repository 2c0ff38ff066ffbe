package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/kvqbook/kvqbook/internal/cli"
	"github.com/kvqbook/kvqbook/internal/passkey"
	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama"
)

func init() { register(newPasskey) }

// passkeyFlags are those of passkey.
type passkeyFlags struct {
	model         cli.ModelFlags
	cache         cli.CacheFlags
	lengths       []int
	trials, batch int
	seed          uint64
	json          bool
}

func newPasskey() *cobra.Command {
	var f passkeyFlags
	c := &cobra.Command{
		Use:   "passkey",
		Short: "How often a number hidden in a long text is found, against the full-precision cache",
		Long: `passkey hides a number of five digits in long texts of made-up sentences, at depths from the beginning to near the end, and asks
the model for it. The text goes in at once, the question and the answer one token at a time through the cache, as in evaluate.
A key counts as found where each of its tokens is the most likely one: greedy generation would have written it. A full-precision
cache reads the same texts.`,
		Example: `  kvq passkey --lengths 512 --trials 5
  kvq passkey --lengths 1024,4096 --preset smallest --json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return f.run(c) },
	}
	fs := c.Flags()
	f.model.Register(fs)
	f.cache.Register(fs)
	fs.IntSliceVar(&f.lengths, "lengths", []int{1024, 2048}, "tokens of the texts, question and answer included")
	fs.IntVar(&f.trials, "trials", 20, "texts of each length")
	fs.IntVar(&f.batch, "batch", 5, "texts read at a time: more need more memory")
	fs.Uint64Var(&f.seed, "seed", 0, "start of the random numbers that make the texts")
	cli.RegisterJSON(fs, &f.json)
	return c
}

// passkeyRow is how one length came out.
type passkeyRow struct {
	Length    int `json:"length"`
	Trials    int `json:"trials"`
	Found     int `json:"found"`
	FullFound int `json:"full_precision_found"`
}

// passkeyJSON is what passkey prints with --json.
type passkeyJSON struct {
	Model       string       `json:"model"`
	Device      string       `json:"device"`
	Cache       string       `json:"cache"`
	Seed        uint64       `json:"seed"`
	Rows        []passkeyRow `json:"rows"` // the finished ones, when interrupted
	Seconds     float64      `json:"seconds"`
	Interrupted bool         `json:"interrupted,omitempty"`
}

func (f *passkeyFlags) run(c *cobra.Command) error {
	ctx, out, errs := c.Context(), c.OutOrStdout(), c.ErrOrStderr()
	files, err := f.model.Open(c)
	if err != nil {
		return err
	}
	config, err := f.cache.Config(c.Flags(), files.Config())
	if err != nil {
		return err
	}
	lengths, err := f.texts(ctx, files)
	if err != nil {
		return err
	}
	start, j := time.Now(), passkeyJSON{Model: files.Path(), Cache: config.String(), Seed: f.seed, Rows: []passkeyRow{}}
	outcome := cli.OutcomeOf(ctx)
	finish := func() error {
		f.model.Status(errs).Close()
		j.Seconds, j.Interrupted = time.Since(start).Seconds(), ctx.Err() != nil
		if f.json {
			return cli.PrintJSON(out, j)
		}
		if len(j.Rows) == 0 {
			return nil
		}
		return f.print(out, j)
	}
	outcome.OnInterrupt(func() { _ = finish() })
	status := f.model.Status(errs)
	defer status.Close()
	err = func() error {
		model, err := f.model.Load(ctx, files, errs)
		if err != nil {
			return err
		}
		defer model.Close(ctx)
		f.cache.NoteGroups(errs, c.Flags(), config, model.Config())
		cli.NoteForm(errs, model.Model, config)
		j.Device = model.Device
		// One generator for all lengths: those of one size share what is compiled.
		full, err := llama.NewGenerator(model.Model, kvq.Config{})
		if err != nil {
			return err
		}
		tested, err := llama.NewGenerator(model.Model, config)
		if err != nil {
			return err
		}
		defer cli.Finalize(ctx, full.Finalize, tested.Finalize)
		for i, trials := range lengths {
			status.Clear()
			cli.Note(errs, "reading %d texts of %d tokens with the cache %s", len(trials), f.lengths[i], config)
			ctx := status.Context(ctx)
			row := passkeyRow{Length: f.lengths[i], Trials: len(trials)}
			if row.FullFound, err = findKeys(ctx, full, trials, f.batch); err != nil {
				return err
			}
			if row.Found, err = findKeys(ctx, tested, trials, f.batch); err != nil {
				return err
			}
			if err := outcome.Update(func() error { j.Rows = append(j.Rows, row); return nil }); err != nil {
				return err
			}
		}
		return nil
	}()
	return outcome.End(ctx, err, finish)
}

// texts makes the trials of every length, before any weight is loaded.
func (f *passkeyFlags) texts(ctx context.Context, files *llama.Files) ([][]passkey.Trial, error) {
	if f.trials < 1 || f.batch < 1 {
		return nil, usererr.New("--trials %d and --batch %d, want at least 1 of each", f.trials, f.batch)
	}
	if len(f.lengths) == 0 {
		return nil, usererr.New("no length, want --lengths with at least one number of tokens")
	}
	tok, err := files.Tokenizer()
	if err != nil {
		return nil, err
	}
	var list [][]passkey.Trial
	for _, length := range f.lengths {
		if most := files.Config().MaxPositions; length > most {
			return nil, usererr.New("--lengths %d, the model reads at most %d tokens", length, most)
		}
		trials, err := passkey.Trials(ctx, tok, length, f.trials, f.seed)
		if err != nil {
			return nil, err
		}
		list = append(list, trials)
	}
	return list, nil
}

// findKeys counts the keys that a cache finds.
func findKeys(ctx context.Context, g *llama.Generator, trials []passkey.Trial, batch int) (int, error) {
	found, _, err := passkey.Measure(ctx, g, trials, batch)
	if err != nil {
		return 0, err
	}
	return passkey.Count(trials, found), nil
}

func (f *passkeyFlags) print(w io.Writer, j passkeyJSON) error {
	t := cli.NewTable(w, table.Row{"tokens", "keys", "found", "found in full precision"})
	for _, r := range j.Rows {
		t.AppendRow(table.Row{r.Length, r.Trials, r.Found, r.FullFound})
	}
	t.Render()
	_, err := fmt.Fprintf(w, "cache %s; %.0f s\n", j.Cache, j.Seconds)
	return err
}
