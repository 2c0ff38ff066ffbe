package main

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strings"

	judging "github.com/kvqbook/kvqbook/internal/judge"
)

// written are the tables of what was written freely, greedy and sampled.
func (g judgedRun) written(b *bytes.Buffer) {
	full, ok := g.find(keyCaches()[0], partFree, 0)
	if !ok || len(full.Judged.Texts) == 0 {
		return
	}
	tokens := full.Judged.Texts[0].Tokens
	fmt.Fprintf(b, freeText, tokens, fmt.Sprint(temperature), topK)
	for _, sampled := range []bool{false, true} {
		texts := ofKind(full.Judged.Texts, sampled)
		if len(texts) == 0 {
			continue
		}
		prompts := map[int]bool{}
		for _, t := range texts {
			prompts[t.Prompt] = true
		}
		name := "Greedy"
		if sampled {
			name = "Sampled"
		}
		fmt.Fprintf(b, "\n### %s\n\n%d texts of %d prompts.\n\n", name, len(texts), len(prompts))
		fmt.Fprintln(b, "| cache | 4-grams seen before | points above full precision | longest repeat, tokens | perplexity | of full precision's | parts at token | never parts | KL before | KL after | perplexity after | of full precision's |")
		fmt.Fprintln(b, "|"+strings.Repeat(" --- |", 12))
		for _, c := range keyCaches() {
			if r, ok := g.find(c, partFree, 0); ok {
				if own := ofKind(r.Judged.Texts, sampled); len(own) == len(texts) {
					fmt.Fprintln(b, writtenRow(c.name, own, texts, c.config.Quantized()))
				}
			}
		}
	}
}

func ofKind(texts []writtenText, sampled bool) (list []writtenText) {
	for _, t := range texts {
		if t.Sampled == sampled {
			list = append(list, t)
		}
	}
	return list
}

// writtenRow sums up what a cache wrote beside what full precision wrote, text by text.
func writtenRow(name string, own, full []writtenText, quantized bool) string {
	over := func(value func(i int) (float64, bool)) (mean, e float64, n int) {
		var list []float64
		for i := range own {
			if x, ok := value(i); ok {
				list = append(list, x)
			}
		}
		mean, e = judging.Mean(list)
		return mean, e, len(list)
	}
	everyText := func(value func(i int) float64) (mean, e float64) {
		mean, e, _ = over(func(i int) (float64, bool) { return value(i), true })
		return mean, e
	}
	percent := func(x, e float64) string { return plusMinus(100*x, 100*e, 1) + " %" }
	factor := func(x, e float64) string { return plusMinus(math.Exp(x), math.Exp(x)*e, 3) } // of a mean of logarithms

	repeated := percent(everyText(func(i int) float64 { return own[i].Repeated }))
	longest, longestError := everyText(func(i int) float64 { return float64(own[i].Longest) })
	perplexity := factor(everyText(func(i int) float64 { return own[i].NLL }))
	row := []string{name, repeated, "", plusMinus(longest, longestError, 0), perplexity, "", "", "", "", "", "", ""}
	if !quantized {
		return "| " + strings.Join(row, " | ") + " |"
	}
	more, moreError := everyText(func(i int) float64 { return own[i].Repeated - full[i].Repeated })
	row[2] = plusMinus(100*more, 100*moreError, 1)
	row[5] = factor(everyText(func(i int) float64 { return own[i].NLL - full[i].NLL }))
	var places []int
	never := 0
	for _, t := range own {
		places = append(places, t.Parted)
		if t.Parted >= t.Tokens {
			never++
		}
	}
	slices.Sort(places)
	parted, partedError := everyText(func(i int) float64 { return float64(own[i].Parted) })
	row[6] = plusMinus(parted, partedError, 0) + fmt.Sprintf(" (median %d)", places[(len(places)-1)/2])
	row[7] = fmt.Sprintf("%d of %d", never, len(own))
	before, beforeError, _ := over(func(i int) (float64, bool) { return own[i].KLBefore, own[i].Parted > 0 })
	row[8] = plusMinus(before, beforeError, 5)
	// left: texts with so many tokens from the parting on.
	left := func(tokens int, value func(i int) float64) (mean, e float64, n int) {
		return over(func(i int) (float64, bool) { return value(i), own[i].Parted+tokens <= own[i].Tokens })
	}
	if after, e, n := left(2, func(i int) float64 { return own[i].KLAfter }); n > 0 {
		row[9] = plusMinus(after, e, 5)
	}
	if x, e, n := left(1, func(i int) float64 { return own[i].NLLAfter }); n > 0 {
		row[10] = factor(x, e)
		x, e, _ = left(1, func(i int) float64 { return own[i].NLLAfter - own[i].FullAfter })
		row[11] = factor(x, e)
	}
	return "| " + strings.Join(row, " | ") + " |"
}

const freeText = `
## Free generation

Each cache writes %d tokens after each prompt ("Write a long ... about ..."); the end of a text is
forbidden. Sampled texts have temperature %s and top_k %d. A row of a batch has the same random
numbers with every cache, so a text parts from full precision's only where the cache changed a
probability enough.

- **4-grams seen before**: share of the runs of four tokens that stand in the text before; **longest
  repeat**: tokens of the longest part that begins anew later.
- **Perplexity** is that of the written text under the full-precision cache, which reads it token by
  token. A cache that writes what full precision finds unlikely has a higher one; a loop has a low
  one.
- **Parts at token**: how many tokens are those of full precision's text. A text that never parts
  counts with its length.
- **KL before** and **after** the parting: of the cache's prediction from full precision's, in nats,
  both reading what the cache wrote; the token at which they part is in neither.
- **Perplexity after** is beside that of what full precision wrote from the same place on.

± is the standard error over texts; where caches are compared, that of the difference text by text.
`
