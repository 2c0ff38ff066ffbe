package main

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/kvqbook/kvqbook/internal/cli"
	"github.com/kvqbook/kvqbook/kvq"
)

// Caches side by side fit 80 columns: what does not stands in a second table, with their names. A
// cache has its one number of bits, and a line says where it takes more.
func TestPrintEvaluated(t *testing.T) {
	t.Setenv("COLUMNS", "80")
	row := func(bits cli.Bits) evaluateJSON {
		return evaluateJSON{bits: bits, All: &evaluatedJSON{Tokens: 2559, KL: new(0.00954), KLError: new(0.00031), KLMedian: new(0.0042), KL99: new(0.0712), KLLargest: new(0.903),
			Agreement: new(0.9253), Ratio: new(1.0005), RatioError: new(0.0008), FullPerplexity: new(16.5741)}}
	}
	var b strings.Builder
	caches := []cli.NamedConfig{{Name: "tutorial", Config: kvq.Tutorial()}, {Name: "balanced"}}
	if err := printEvaluated(&b, caches, []evaluateJSON{row(cli.Bits{Named: 5, Here: 6}), row(cli.Bits{Named: 5, Here: 5})}); err != nil {
		t.Fatal(err)
	}
	out := b.String()
	for line := range strings.SplitSeq(out, "\n") {
		if n := utf8.RuneCountInString(line); n > 80 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	for _, want := range []string{"│ tutorial │ 5 ", "│ balanced │ 5 ", "tutorial: 5 bits a value with 16-bit scales, 6 here", "2559 tokens scored; perplexity in full precision 16.5741\n",
		"0.00954", "92.53 %", "x 1.0005", "0.903"} {
		if !strings.Contains(out, want) {
			t.Errorf("want %q in\n%s", want, out)
		}
	}
	if strings.Contains(out, "balanced: 5 bits") || strings.Count(out, "│ balanced │") != 2 {
		t.Errorf("%s", out)
	}
	t.Log("\n" + out)
}
