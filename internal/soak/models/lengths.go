package models

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/kvqbook/kvqbook/internal/soak"
	"github.com/kvqbook/kvqbook/llama"
	"github.com/kvqbook/kvqbook/tokenizer"
)

var lengths = soak.Part{
	Name: "lengths",
	Promise: "Prompts and generations of any length are right at every boundary: blocks, windows, groups, capacity and context; " +
		"what is too long is refused in one line.",
	Test: "`TestLengthsAroundEveryBoundary` in `kvq`, `TestGenerationEndsWithTheContext`, `TestSizesChangeNothing` in `llama`; `TestQuick/lengths` in `internal/soak/models`",
	Run:  runLengths,
}

// contextTokens is what the tiny model reads at most: more than a cache's first size where a
// generation is long, so that caches grow on the way.
const contextTokens = 1100

func runLengths(ctx context.Context, s *soak.Sitting) error {
	list, positions := caches(), contextTokens
	if s.Quick {
		list, positions = some("quanto-2"), 80
	}
	var m *llama.Model
	for _, c := range list {
		if s.Kept(c.name) != "" || ctx.Err() != nil {
			continue
		}
		if m == nil {
			var err error
			if m, err = tiny(positions); err != nil {
				return err
			}
		}
		if err := lengthsOf(ctx, s, c, m); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		if ctx.Err() == nil {
			s.Keep(c.name, "done")
		}
	}
	return nil
}

// boundaries are the lengths of prompts: around blocks of 32, the window, both together, and the
// context.
func boundaries(window, positions int, quick bool) []int {
	set := map[int]bool{}
	around := func(n int) {
		for _, x := range []int{n - 1, n, n + 1} {
			if x >= 1 && x <= positions {
				set[x] = true
			}
		}
	}
	around(1)
	around(32)
	if quick {
		set[positions] = true
	} else {
		around(64)
		around(window)
		around(window + 32)
		around(1024)
		around(positions)
	}
	var list []int
	for n := range set {
		list = append(list, n)
	}
	slices.Sort(list)
	return list
}

// lengthsOf generates after prompts of all lengths, in calls of several sizes.
func lengthsOf(ctx context.Context, s *soak.Sitting, c named, m *llama.Model) error {
	g, end, err := generatorOf(s, m, c)
	if err != nil {
		return err
	}
	defer end()
	positions, vocabulary := m.Config().MaxPositions, m.Config().VocabSize
	window := c.config.ResidualLength + c.config.Sinks
	for _, length := range boundaries(window, positions, s.Quick) {
		for _, tokens := range []int{1, window + 33, positions - length + 1, 1_000_000} {
			if ctx.Err() != nil {
				return nil
			}
			possible := positions - length + 1
			// To the end of the context only from near to it, and once from far: caches grow there.
			if most := 200; tokens >= possible && possible > most && length != 1 {
				continue
			}
			s.Doing("%s: prompt of %d, %d new tokens", c.name, length, tokens)
			if what := lengthOf(ctx, g, prompts(vocabulary, uint64(length), length), tokens, positions); what != "" && ctx.Err() == nil {
				s.Fail(nil, "%s: prompt of %d, %d new tokens: %s", c.name, length, tokens, what)
			}
			s.Try("lengths")
		}
	}
	for _, length := range []int{0, positions + 1} {
		_, err := g.Generate(ctx, prompts(vocabulary, 1, length), greedy(1))
		if !errors.Is(err, llama.ErrInput) || strings.Contains(err.Error(), "\n") {
			s.Fail(nil, "%s: a prompt of %d: error %v, want one line that says so", c.name, length, err)
		}
		s.Try("lengths")
	}
	return grown(ctx, s, c, g)
}

// lengthOf says what is wrong with a generation, "" for nothing: how long it is, why it ended, and
// that it does not depend on how many tokens a call makes.
func lengthOf(ctx context.Context, g *llama.Generator, batch tokenizer.Batch, tokens, positions int) string {
	length := len(batch.IDs[0])
	want, stop := tokens, llama.StopLength
	if possible := positions - length + 1; want > possible {
		want, stop = possible, llama.StopContext
	}
	var first []tokenizer.Token
	for _, block := range []int{0, 1, 33} {
		gc := greedy(tokens)
		if gc.BlockSize = block; block == 1 && want > 200 {
			continue // a call for each token takes its time
		}
		result, err := g.Generate(ctx, batch, gc)
		if err != nil {
			return err.Error()
		}
		if n := len(result.Tokens[0]); n != want || result.Stop != stop {
			return fmt.Sprintf("%d tokens, ended by %q; want %d, %q", n, result.Stop, want, stop)
		}
		switch {
		case first == nil:
			first = result.Tokens[0]
		case !slices.Equal(first, result.Tokens[0]):
			return fmt.Sprintf("%v in calls of %d tokens, else %v", result.Tokens[0], block, first)
		}
	}
	return ""
}

// grown generates over the size at which a cache has to grow, to the end of the context, and has
// the model read what came once more: each token has to be the best one again.
func grown(ctx context.Context, s *soak.Sitting, c named, g *llama.Generator) error {
	positions := g.Model().Config().MaxPositions
	if positions <= 1024 || ctx.Err() != nil {
		return nil
	}
	const length = 700 // 768 columns; with 256 more the first size is 1,024
	batch := prompts(g.Model().Config().VocabSize, 3, length)
	long, err := g.Generate(ctx, batch, greedy(positions-length+1))
	if err != nil {
		return err
	}
	gc := greedy(0)
	gc.TeacherForced, gc.KeepLogits = long.Tokens, true
	again, err := g.Generate(ctx, batch, gc)
	if err != nil {
		return err
	}
	for i, token := range long.Tokens[0] {
		logits := again.Logits[i][0]
		most := slices.Max(logits)
		if !finite(logits) || float64(most)-float64(logits[token]) > tie {
			s.Fail(nil, "%s: token %d after a prompt of %d is not the best one when it is read again", c.name, i, length)
			break
		}
	}
	s.Try("caches that grow")
	return nil
}
