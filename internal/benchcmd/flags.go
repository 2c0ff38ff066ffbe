package benchcmd

import (
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/kvqbook/kvqbook/internal/cli"
	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama"
)

// commonFlags are those that all benchmarks share.
type commonFlags struct {
	cache    cli.CacheFlags
	tokens   []int
	batches  []int
	runs     int
	steps    int
	markdown bool
	json     bool
	slowest  bool // bench decode alone
	own      bool // rows have lengths of their own; bench decode alone

	status *cli.Status // what is told while it runs; closed by who prints the report
}

func (f *commonFlags) register(fs *pflag.FlagSet, tokens, batches []int, steps int) {
	f.cache.Register(fs)
	fs.IntSliceVar(&f.tokens, "tokens", tokens, "contexts: tokens that the cache holds")
	fs.IntSliceVar(&f.batches, "batches", batches, "rows of a batch")
	fs.IntVar(&f.runs, "runs", 7, "counted runs of each, in alternation")
	fs.IntVar(&f.steps, "steps", steps, "tokens of one run")
	fs.BoolVar(&f.markdown, "markdown", false, "print a Markdown table")
	cli.UnderMore(fs, "markdown")
	cli.RegisterJSON(fs, &f.json)
}

// parse checks the flags, and returns the cache that they ask for.
func (f *commonFlags) parse(fs *pflag.FlagSet) (kvq.Config, error) {
	if err := f.check(); err != nil {
		return kvq.Config{}, err
	}
	return f.cache.Parse(fs)
}

// fit fits what parse returned to a model's heads, and says so where that changes it.
func (f *commonFlags) fit(c *cobra.Command, cache kvq.Config, model llama.Config) kvq.Config {
	f.status.Clear() // for the note
	fitted := f.cache.Fit(c.Flags(), cache, model)
	f.cache.NoteGroups(c.ErrOrStderr(), c.Flags(), fitted, model)
	return fitted
}

func (f *commonFlags) check() error {
	for _, list := range []struct {
		name   string
		values []int
	}{{"tokens", f.tokens}, {"batches", f.batches}, {"runs", []int{f.runs}}, {"steps", []int{f.steps}}} {
		for _, v := range list.values {
			if v < 1 {
				return usererr.New("--%s %d, want at least 1", list.name, v)
			}
		}
	}
	return nil
}
