package evaluate

import "math"

// Scores say how well a model with its cache predicts one text, token by token, from the first
// token after the prefilled ones on.
type Scores struct {
	NLL []float32 // negative log-likelihood of each token, in nats
	// Kullback-Leibler divergence from the reference's prediction to this one, in nats; nil without
	// a reference
	KL   []float32
	Top1 []bool // whether both find the same token most likely; nil without a reference
}

// Perplexity is e to the mean of NLL.
func (s Scores) Perplexity() float64 { return math.Exp(s.MeanNLL()) }

// MeanNLL is the mean of NLL, in nats. That of no token is NaN.
func (s Scores) MeanNLL() float64 { return mean(s.NLL) }

// MeanKL is the mean of KL, in nats. Without a reference it is NaN.
func (s Scores) MeanKL() float64 { return mean(s.KL) }

// Agreement is the share of tokens whose Top1 is true. Without a reference it is NaN.
func (s Scores) Agreement() float64 {
	var n float64
	for _, same := range s.Top1 {
		if same {
			n++
		}
	}
	return n / float64(len(s.Top1))
}

// mean sums in float64.
func mean(scores []float32) float64 {
	var sum float64
	for _, s := range scores {
		sum += float64(s)
	}
	return sum / float64(len(scores))
}

// join puts the scores of several texts one after the other.
func join(rows []Scores) Scores {
	var all Scores
	for _, s := range rows {
		all.NLL, all.KL, all.Top1 = append(all.NLL, s.NLL...), append(all.KL, s.KL...), append(all.Top1, s.Top1...)
	}
	return all
}
