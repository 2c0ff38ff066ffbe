package evaluate_test

import (
	"fmt"

	"github.com/kvqbook/kvqbook/llama/evaluate"
)

// What scores of three tokens say. The first was as likely as a side of a coin, ln 2 = 0.693 nats.
func ExampleScores() {
	s := evaluate.Scores{
		NLL:  []float32{0.693147, 1.386294, 0},
		KL:   []float32{0.01, 0.02, 0},
		Top1: []bool{true, false, true},
	}
	fmt.Printf("perplexity %.3f, KL divergence %.3f nats, same choice %.1f %%\n", s.Perplexity(), s.MeanKL(), 100*s.Agreement())
	// Output:
	// perplexity 2.000, KL divergence 0.010 nats, same choice 66.7 %
}
