package main

import "math"

// means of several texts, over all their tokens.
type means struct {
	tokens                     int
	perplexity, full, kl, same float64
}

// mean joins the texts of a set.
func mean(scores []textScore, set string) means {
	var m means
	var nll, full float64
	for _, s := range scores {
		if s.Set != set {
			continue
		}
		n := float64(s.Tokens)
		m.tokens += s.Tokens
		nll, full, m.kl, m.same = nll+n*s.NLL, full+n*s.FullNLL, m.kl+n*s.KL, m.same+n*s.Same
	}
	n := float64(m.tokens)
	m.perplexity, m.full, m.kl, m.same = math.Exp(nll/n), math.Exp(full/n), m.kl/n, m.same/n
	return m
}
