package benchcmd

import (
	"context"
	"fmt"
	"os"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/kvqbook/kvqbook/internal/bench"
	"github.com/kvqbook/kvqbook/internal/cli"
	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/llama"
)

// sideFlags are those of benchmarks whose contestants are processes of their own.
type sideFlags struct {
	model  cli.ModelFlags
	random string
}

func (f *sideFlags) register(fs *pflag.FlagSet) {
	f.model.Register(fs)
	registerRandom(fs, &f.random)
}

// args are the flags of kvq bench serve for the model, as they were given.
func (f *sideFlags) args(fs *pflag.FlagSet) (args []string) {
	return given(fs, new(sideFlags).register)
}

// cacheArgs are the flags that describe a cache, as they were given.
func cacheArgs(fs *pflag.FlagSet) []string {
	return given(fs, new(cli.CacheFlags).Register)
}

// given are the flags of fs that were set, of those that register adds.
func given(fs *pflag.FlagSet, register func(*pflag.FlagSet)) (args []string) {
	own := pflag.NewFlagSet("", pflag.ContinueOnError)
	register(own)
	fs.Visit(func(flag *pflag.Flag) {
		if own.Lookup(flag.Name) != nil {
			args = append(args, "--"+flag.Name+"="+flag.Value.String())
		}
	})
	return args
}

// start starts this program once with the cache of the flags and once with a full-precision one.
func (f *sideFlags) start(c *cobra.Command) (sides []*bench.Side, closeAll func(), err error) {
	model := f.args(c.Flags())
	for _, one := range []struct {
		name  string
		cache []string
	}{{"quantized", cacheArgs(c.Flags())}, {"full precision", []string{"--cache=full"}}} {
		f.model.Status(c.ErrOrStderr()).Stage("starting a process that loads the model (%s)", one.name)
		s, err := kvqSide(c, one.name, slices.Concat(model, one.cache)...)
		if err != nil {
			closeSides(sides)
			return nil, nil, err
		}
		sides = append(sides, s)
	}
	return sides, func() { closeSides(sides) }, nil
}

func closeSides(sides []*bench.Side) {
	for _, s := range sides {
		s.Close()
	}
}

// config is the model's configuration, without its weights.
func (f *sideFlags) config(c *cobra.Command) (llama.Config, *llama.Files, error) {
	if f.random != "" {
		shape, ok := randomModels[f.random]
		if !ok {
			return shape, nil, usererr.New("--random %q, want %v", f.random, randomShapes())
		}
		return shape, nil, nil
	}
	files, err := f.model.Open(c)
	if err != nil {
		return llama.Config{}, nil, err
	}
	return files.Config(), files, nil
}

// madeUpPrompt are batch rows of tokens ids, for what does not depend on the text.
func madeUpPrompt(config llama.Config, batch, tokens int) [][]int32 {
	rows := make([][]int32, batch)
	for i := range rows {
		rows[i] = make([]int32, tokens)
		for j := range rows[i] {
			rows[i][j] = int32((100 + i*31 + j*97) % config.VocabSize)
		}
	}
	return rows
}

// textPrompt is one row of tokens ids: the texts of files, over and over.
func textPrompt(files *llama.Files, paths []string, tokens int) ([]int32, error) {
	tok, err := files.Tokenizer()
	if err != nil {
		return nil, err
	}
	var ids []int32
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, usererr.New("--text: %w", err)
		}
		ids = append(ids, tok.Encode(string(text))...)
	}
	if len(ids) == 0 {
		return nil, usererr.New("--text: no text in %d files, want at least a word", len(paths))
	}
	row := make([]int32, tokens)
	for i := range row {
		row[i] = ids[i%len(ids)]
	}
	return row, nil
}

// alternate runs the requests of all sides in alternation, see [bench.Alternate], and tells what.
func alternate(ctx context.Context, status *cli.Status, what string, runs int, sides []*bench.Side, request func() bench.Request, seen func(side int, r bench.Reply)) ([]bench.Times, error) {
	contestants := make([]bench.Run, len(sides))
	for i, s := range sides {
		contestants[i] = s.Run(request(), func(r bench.Reply) {
			if seen != nil {
				seen(i, r)
			}
		})
	}
	return watched(ctx, status, what, runs, contestants...)
}

// all sends one request to every side.
func all(ctx context.Context, sides []*bench.Side, r bench.Request) ([]bench.Reply, error) {
	replies := make([]bench.Reply, len(sides))
	for i, s := range sides {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		var err error
		if replies[i], err = s.Do(r); err != nil {
			return nil, err
		}
	}
	return replies, nil
}

// mib prints bytes; nothing for none.
func mib(bytes int64) string {
	if bytes == 0 {
		return ""
	}
	return fmt.Sprintf("%.0f", float64(bytes)/(1<<20))
}
