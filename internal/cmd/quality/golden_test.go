package main

import "testing"

func TestNear(t *testing.T) {
	spoken, lost := goldenRow{Perplexity: 30, KL: 0.8}, goldenRow{Perplexity: 154, KL: 2.4}
	for _, c := range []struct {
		golden         goldenRow
		perplexity, kl float64
		want           bool
	}{
		{spoken, 30.29, 0.87, true},
		{spoken, 30.31, 0.8, false},
		{spoken, 30, 0.89, false},
		{spoken, 30, 0.71, false},
		{lost, 159, 2.5, true},
		{lost, 154, 2.7, false},
	} {
		if got := c.golden.near(means{perplexity: c.perplexity, kl: c.kl}); got != c.want {
			t.Errorf("perplexity %g, KL %g near %+v: %v, want %v", c.perplexity, c.kl, c.golden, got, c.want)
		}
	}
}
