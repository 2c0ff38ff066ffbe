package main

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/kvqbook/kvqbook/kvq"
)

// document writes a run as Markdown, with the picture beside it. outside names the rows of quanto
// that miss their golden.
func (g run) document(goldens map[string]goldenRow, picture string) (text []byte, outside []string) {
	var b bytes.Buffer
	fmt.Fprintf(&b, preamble, g.base.Model, g.base.Device, g.base.Version, g.dates())
	if goldens != nil {
		outside = g.againstGoldens(&b, goldens)
	}
	for _, set := range []string{setGolden, setUnseen} {
		g.steps(&b, set)
	}
	if picture != "" {
		fmt.Fprintf(&b, "\n![KL divergence against bits a value](%s)\n", filepath.Base(picture))
	}
	g.presetsByText(&b)
	g.passkeys(&b)
	g.missing(&b)
	return wrapProse(b.Bytes()), outside
}

func (g run) againstGoldens(b *bytes.Buffer, goldens map[string]goldenRow) (outside []string) {
	var rows []string
	for _, s := range makeSteps() {
		golden, known := goldens[s.golden]
		r, measured := g.find(job{step: s})
		m := mean(r.Scores, setGolden)
		if !known || !measured || m.tokens == 0 {
			continue
		}
		verdict := "yes"
		if !golden.near(m) {
			verdict = "no"
			if s.config.Backend == kvq.Quanto {
				outside = append(outside, s.name)
			}
		}
		rows = append(rows, fmt.Sprintf("| %s | %.3f | %.3f | %+.2f %% | %.5f | %.5f | %+.1f %% | %.1f %% | %.1f %% | %s |\n", s.name, m.perplexity, golden.Perplexity,
			100*(m.perplexity/golden.Perplexity-1), m.kl, golden.KL, 100*(m.kl/golden.KL-1), 100*m.same, 100*golden.Same, verdict))
	}
	if len(rows) == 0 {
		return nil
	}
	fmt.Fprintf(b, againstTransformers, 100*perplexityWithin, 100*klWithin, lostKL)
	b.WriteString(strings.Join(rows, ""))
	b.WriteString(aboutGoldens)
	return outside
}

var titles = map[string]string{setGolden: "The goldens' texts", setUnseen: "Texts that nobody tuned on"}

// steps is the table of a set: bits, quality, and the part of the tutorial's divergence.
func (g run) steps(b *bytes.Buffer, set string) {
	tutorial, _ := g.find(job{step: step{config: tutorialConfig}})
	reference := mean(tutorial.Scores, set)
	first := true
	for _, s := range makeSteps() {
		r, ok := g.find(job{step: s})
		m := mean(r.Scores, set)
		if !ok || m.tokens == 0 {
			continue
		}
		if first {
			var names []string
			for _, t := range r.Scores {
				if t.Set == set {
					names = append(names, t.Text)
				}
			}
			fmt.Fprintf(b, "\n## %s\n\n%d texts: %s; %d tokens scored. Full precision: perplexity %.3f.\n\n", titles[set], len(names), strings.Join(names, ", "), m.tokens, m.full)
			fmt.Fprintln(b, "| cache | bits a value | perplexity | above full precision | KL | of the tutorial's KL | top-1 | what it tells |")
			fmt.Fprintln(b, "| --- | --- | --- | --- | --- | --- | --- | --- |")
			first = false
		}
		part := ""
		if reference.tokens > 0 {
			part = fmt.Sprintf("%.3f", m.kl/reference.kl)
		}
		fmt.Fprintf(b, "| %s | %.3f | %.3f | %+.2f %% | %.5f | %s | %.1f %% | %s |\n", s.name, r.Bits, m.perplexity, 100*(m.perplexity/m.full-1), m.kl, part, 100*m.same, s.note)
	}
}

// presetsByText shows that no single text makes the mean.
func (g run) presetsByText(b *bytes.Buffer) {
	var header []string
	var results []result
	for _, s := range keyCaches() {
		if r, ok := g.find(job{step: s}); ok && len(r.Scores) > 0 {
			header, results = append(header, s.name), append(results, r)
		}
	}
	if len(results) < 2 {
		return
	}
	fmt.Fprintf(b, "\n## KL by text\n\n| text | tokens scored | %s |\n| --- | --- |%s\n", strings.Join(header, " | "), strings.Repeat(" --- |", len(header)))
	for i, t := range results[0].Scores {
		fmt.Fprintf(b, "| %s | %d |", t.Text, t.Tokens)
		for _, r := range results {
			fmt.Fprintf(b, " %.5f |", r.Scores[i].KL)
		}
		fmt.Fprintln(b)
	}
}

// passkeys is the table of keys found, by length and cache.
func (g run) passkeys(b *bytes.Buffer) {
	if len(g.lengths()) == 0 {
		return
	}
	b.WriteString(passkeyText)
	caches := keyCaches()
	fmt.Fprint(b, "| tokens | keys |")
	for _, s := range caches {
		fmt.Fprintf(b, " %s |", s.name)
	}
	fmt.Fprintf(b, "\n| --- | --- |%s\n", strings.Repeat(" --- |", len(caches)))
	for _, n := range g.lengths() {
		cells, trials := "", 0
		for _, s := range caches {
			cell := ""
			if r, ok := g.find(job{step: s, length: n}); ok {
				cell, trials = fmt.Sprintf("%d (%.0f %%)", r.Keys.Found, 100*float64(r.Keys.Right)/float64(r.Keys.Tokens)), r.Keys.Trials
			}
			cells += " " + cell + " |"
		}
		fmt.Fprintf(b, "| %d | %d |%s\n", n, trials, cells)
	}
}

// missing says which rows this run lacks, so that a gap is not taken for a result.
func (g run) missing(b *bytes.Buffer) {
	jobs, err := makeJobs(g.lengths(), "")
	if err != nil {
		return
	}
	var names []string
	for _, j := range jobs {
		if _, ok := g.find(j); !ok {
			names = append(names, j.name())
		}
	}
	if len(names) > 0 {
		fmt.Fprintf(b, "\nNot measured in this run: %s.\n", strings.Join(names, ", "))
	}
}

const preamble = `# Quality

What caches cost, measured on what the model says: SmolLM2-135M (%s,
weights rounded to float16, computed in float32) reads texts token by token through the cache
(teacher-forced). 64 tokens of each text go in at once; every token after them is predicted and
scored.

- **KL** is the mean divergence of the prediction from that with a full-precision cache, in nats.
- **Top-1** is the share of tokens where both find the same token most likely.
- **Bits a value** count codes, scales and zero points (16 bits each where the configuration does
  not say), keys and values averaged, without window and sinks. What feedback keeps of a prompt's
  queries is spread over 2,048 tokens.

Made by ` + "`./scripts/quality`" + ` on
%s,
code version %s (a hash of the packages that decide about the results), %s.
All rows of a table are of one version and device, over the same texts in one batch;
[quality.jsonl](quality.jsonl) has every text of every row. Failures stay in the tables.
`

const againstTransformers = `
## Against transformers

The caches that transformers has too, on the texts that it read. Rows of quanto have to be within
%.0f %% of perplexity and %.0f %% of KL, or ` + "`./scripts/quality`" + ` fails. Above a KL of %g, where the
model no longer knows its text, the KL alone is held. Rows of hqq are held to no bound.

| cache | perplexity | transformers | | KL | transformers | | top-1 | transformers | within |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
`

const aboutGoldens = `
Keys per channel are not quite the same cache. transformers' groups run over the tokens of all heads
and rows one after the other; ours keep to one head of one row. And transformers codes all tokens
anew from their decoded values at every flush; here a token is coded once.
`

const passkeyText = `
## Passkeys

A number of five digits is hidden in a long text of made-up sentences, at depths 0, 0.25, 0.5, 0.75
and 0.9, one after the other. At the end the model is asked for it (` + "`kvq passkey`" + `). The text goes in
at once; question and answer go through the cache one token at a time. The table has the keys found
whole and, in brackets, the share of their digits.

`
