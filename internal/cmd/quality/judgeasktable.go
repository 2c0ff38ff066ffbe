package main

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	judging "github.com/kvqbook/kvqbook/internal/judge"
	"github.com/kvqbook/kvqbook/internal/judge/task"
)

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

const askedText = `
## Keys and tasks

Questions with one right answer each, made by a script. The text goes in at once; the question and
the answer go through the cache one token at a time. An answer is right if all its tokens are, as
greedy generation would have written them. How hard the questions are was chosen on full precision
alone, so that it gets 30 to 95 % of them right at 1,000 tokens. In brackets, Wilson's interval of
95 %. Behind it, the questions that full precision has right and this cache wrong (-), and the other
way round (+).

`
