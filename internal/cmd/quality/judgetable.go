package main

import (
	"bytes"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"

	judging "github.com/kvqbook/kvqbook/internal/judge"
	"github.com/kvqbook/kvqbook/internal/judge/task"
)

// document writes the run as Markdown.
func (g judgedRun) document(picture string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, judgedPreamble, g.base.Model, g.base.Device, g.base.Version, run{results: g.results}.dates())
	g.positions(&b, picture)
	g.written(&b)
	g.asked(&b)
	g.missing(&b)
	return b.Bytes()
}

// positions is the table of divergence by position.
func (g judgedRun) positions(b *bytes.Buffer, picture string) {
	full, ok := g.find(keyCaches()[0], partPosition, 0)
	if !ok {
		return
	}
	bins := full.Judged.Bins
	b.WriteString(positionText)
	header := "| cache | bits a value |"
	for _, x := range bins {
		header += fmt.Sprintf(" %d to %d |", x.From, x.To)
	}
	rule := strings.Repeat(" --- |", 2+len(bins))
	row := func(name, bits string, cell func(i int) string) {
		fmt.Fprintf(b, "| %s | %s |", name, bits)
		for i := range bins {
			fmt.Fprintf(b, " %s |", cell(i))
		}
		fmt.Fprintln(b)
	}
	fmt.Fprintf(b, "%s\n|%s\n", header, rule)
	row("tokens scored", "", func(i int) string { return fmt.Sprint(bins[i].Tokens) })
	for _, c := range keyCaches()[1:] {
		if r, ok := g.find(c, partPosition, 0); ok && len(r.Judged.Bins) == len(bins) {
			row(c.name, fmt.Sprintf("%.3f", r.Bits), func(i int) string { return plusMinus(r.Judged.Bins[i].KL, r.Judged.Bins[i].KLError, 5) })
		}
	}
	fmt.Fprintf(b, "\nTop-1 agreement and, in brackets, perplexity. Full precision's own perplexity is the first row.\n\n%s\n|%s\n", header, rule)
	row("full precision", fmt.Sprintf("%.3f", full.Bits), func(i int) string { return fmt.Sprintf("(%.3f)", math.Exp(bins[i].NLL)) })
	for _, c := range keyCaches()[1:] {
		if r, ok := g.find(c, partPosition, 0); ok && len(r.Judged.Bins) == len(bins) {
			row(c.name, fmt.Sprintf("%.3f", r.Bits), func(i int) string {
				return fmt.Sprintf("%.1f %% (%.3f)", 100*r.Judged.Bins[i].Same, math.Exp(r.Judged.Bins[i].NLL))
			})
		}
	}
	if picture != "" {
		fmt.Fprintf(b, "\n![KL divergence by position](%s)\n", filepath.Base(picture))
	}
}

// plusMinus is a number with its standard error.
func plusMinus(x, e float64, digits int) string {
	if math.IsNaN(e) { // of one value
		return fmt.Sprintf("%.*f", digits, x)
	}
	return fmt.Sprintf("%.*f ± %.*f", digits, x, digits, e)
}

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

// leastRight is the share of answers that full precision has to get right for a task to tell
// something of caches.
const leastRight = 0.1

// asked is the table of questions with right answers.
func (g judgedRun) asked(b *bytes.Buffer) {
	lengths := g.lengths()
	if len(lengths) == 0 {
		return
	}
	b.WriteString(askedText)
	for _, k := range task.Kinds {
		fmt.Fprintf(b, "- **%s**: %s.\n", k.Kind, k.About)
	}
	var names []string
	for _, c := range keyCaches() {
		names = append(names, c.name)
	}
	fmt.Fprintf(b, "\n| task | tokens | %s |\n|%s\n", strings.Join(names, " | "), strings.Repeat(" --- |", 2+len(names)))
	var dropped []string
	for _, k := range task.Kinds {
		for _, n := range lengths {
			full, ok := g.answers(keyCaches()[0], k.Kind, n)
			if !ok {
				continue
			}
			if float64(full.right()) < leastRight*float64(len(full.Right)) {
				dropped = append(dropped, fmt.Sprintf("%s at %d tokens (%d of %d)", k.Kind, n, full.right(), len(full.Right)))
				continue
			}
			fmt.Fprintf(b, "| %s | %d |", k.Kind, n)
			for i, c := range keyCaches() {
				cell := ""
				if a, ok := g.answers(c, k.Kind, n); ok {
					low, high := judging.Wilson(a.right(), len(a.Right))
					cell = fmt.Sprintf("%d of %d (%.0f to %.0f %%)", a.right(), len(a.Right), 100*low, 100*high)
					if lost, won := compareAnswers(full.Right, a.Right); i > 0 {
						cell += fmt.Sprintf(", -%d +%d", lost, won)
					}
				}
				fmt.Fprintf(b, " %s |", cell)
			}
			fmt.Fprintln(b)
		}
	}
	if len(dropped) > 0 {
		fmt.Fprintf(b, "\nLeft out, because full precision itself hardly ever finds the answer: %s.\n", strings.Join(dropped, ", "))
	}
}

func (g judgedRun) answers(c step, kind task.Kind, length int) (askedScore, bool) {
	r, ok := g.find(c, partAsked, length)
	if !ok {
		return askedScore{}, false
	}
	i := slices.IndexFunc(r.Judged.Asked, func(a askedScore) bool { return a.Kind == kind })
	if i < 0 {
		return askedScore{}, false
	}
	return r.Judged.Asked[i], true
}

// compareAnswers counts the questions that full precision has right and the cache wrong, and the
// other way round.
func compareAnswers(full, own string) (lost, won int) {
	for i := range min(len(full), len(own)) {
		switch {
		case full[i] > own[i]:
			lost++
		case full[i] < own[i]:
			won++
		}
	}
	return lost, won
}

// missing says which rows this run lacks, so that a gap is not taken for a result.
func (g judgedRun) missing(b *bytes.Buffer) {
	var names []string
	lengths := g.lengths()
	for _, c := range keyCaches() {
		for _, j := range append([]job{{step: c, part: partPosition}, {step: c, part: partFree}}, askedJobs(c, lengths)...) {
			if _, ok := g.find(c, j.part, j.length); !ok {
				names = append(names, j.name())
			}
		}
	}
	if len(names) > 0 {
		fmt.Fprintf(b, "\nNot measured in this run: %s.\n", strings.Join(names, ", "))
	}
}

func askedJobs(c step, lengths []int) (list []job) {
	for _, n := range lengths {
		list = append(list, job{step: c, part: partAsked, length: n})
	}
	return list
}

const judgedPreamble = `# Judged by more than short texts

[quality.md](quality.md) has caches read short texts that are given. Here they read long ones, write
by themselves, and answer questions: where errors build up, forced tokens hide it. SmolLM2-135M
(%s, weights rounded to float16, computed in float32).

Made by ` + "`./scripts/quality --judge`" + ` on
%s,
code version %s (a hash of the packages that decide about the results), %s.
All rows of a table are of one version and device, over the same texts. Failures stay in the tables.
One model of 135 million parameters shows what a cache does to this model; what a large model's long
chains of thought lose, it cannot show.
`

const positionText = `
## Divergence by position

Texts are teacher-forced: 64 tokens go in at once, then one a step. They are the prose of this
repository's own documents, joined and cut; code and tables are left out. KL divergence from full
precision in nats, by how many tokens are before the predicted one, ± its standard error. The error
is over stretches of 64 tokens, since neighbours in a text are alike.

`

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

const askedText = `
## Keys and tasks

Questions with one right answer each, made by a script. The text goes in at once; the question and
the answer go through the cache one token at a time. An answer is right if all its tokens are, as
greedy generation would have written them. In brackets, Wilson's interval of 95 %. Behind it, the
questions that full precision has right and this cache wrong (-), and the other way round (+).

`
