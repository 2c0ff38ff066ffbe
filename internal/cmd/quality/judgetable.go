package main

import (
	"bytes"
	"fmt"
	"math"
	"path/filepath"
	"strings"
)

// document writes the run as Markdown.
func (g judgedRun) document(picture string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, judgedPreamble, g.base.Model, g.base.Device, g.base.Version, run{results: g.results}.dates())
	g.positions(&b, picture)
	g.written(&b)
	g.asked(&b)
	g.missing(&b)
	return wrapProse(b.Bytes())
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
