package oracle

import "slices"

// Coder turns a block of tokens into what comes back from their codes.
type Coder struct {
	// Group is the number of values that share a scale: neighbouring channels of one token, or with
	// PerChannel, tokens of one channel that follow each other, counted from the block's first; the
	// last group of a block may be smaller.
	Group      int
	PerChannel bool
	// TokenScales: groups along tokens are divided by scales of tokens first, see [TokenScales].
	TokenScales bool
	// Quantize returns what comes back of one group.
	Quantize func(group []float32) []float32
}

// MinMaxCoder codes with quanto's min-max quantizer in float32.
func MinMaxCoder(bits, group int, perChannel bool) Coder {
	return Coder{Group: group, PerChannel: perChannel, Quantize: func(x []float32) []float32 {
		codes, scale, zero := MinMax(x, bits, Exact)
		return DequantizeMinMax(codes, scale, zero, Exact)
	}}
}

// Block returns what comes back of tokens [n][D].
func (c Coder) Block(tokens [][]float32) [][]float32 {
	out := make([][]float32, len(tokens))
	for i := range tokens {
		out[i] = make([]float32, len(tokens[i]))
	}
	if !c.PerChannel {
		for i, token := range tokens {
			for at := 0; at < len(token); at += c.Group {
				copy(out[i][at:], c.Quantize(token[at:at+c.Group]))
			}
		}
		return out
	}
	for first := 0; first < len(tokens); first += c.Group {
		last := min(first+c.Group, len(tokens))
		scales := slices.Repeat([]float32{1}, last-first)
		if c.TokenScales {
			scales = TokenScales(tokens[first:last])
		}
		for channel := range tokens[first] {
			var group []float32
			for i, token := range tokens[first:last] {
				if scales[i] > 0 { // others have no vote
					group = append(group, token[channel]/scales[i])
				}
			}
			back := c.Quantize(group)
			for i, scale := range scales {
				if scale > 0 {
					out[first+i][channel], back = back[0]*scale, back[1:]
				}
			}
		}
	}
	return out
}

// Policy says when tokens are coded.
type Policy struct {
	// Whole is transformers' policy: the whole prompt is coded after prefill, and the window is
	// coded whole once it holds Residual tokens (at least 2: the first token after a flush always
	// stays). Otherwise the newest Residual tokens are always exact, the prompt's too, and the
	// oldest ones leave Block at a time.
	Whole    bool
	Residual int
	Block    int
	// Sinks is how many first tokens are never coded; not with Whole.
	Sinks int
}

// Line is an ideal cache for the keys or the values of one head of one row, without padding: what
// attention sees of each token so far. It keeps whole numbers and no bits, so it shows what a real
// cache must give back.
type Line struct {
	policy Policy
	coder  Coder
	seen   [][]float32
	coded  int // tokens before this one are coded or sinks
}

// NewLine returns an empty line.
func NewLine(policy Policy, coder Coder) *Line {
	return &Line{policy: policy, coder: coder, coded: policy.Sinks}
}

// Seen is what attention sees of the tokens so far; the tokens of a step or prompt themselves are
// seen exactly while they come in, and enter by Prompt and Step afterwards.
func (l *Line) Seen() [][]float32 { return l.seen }

// Coded is how many tokens were coded so far.
func (l *Line) Coded() int { return l.coded - l.policy.Sinks }

// Prompt adds the first tokens.
func (l *Line) Prompt(tokens [][]float32) {
	if l.policy.Whole {
		l.seen = append(l.seen, tokens...)
		l.code(len(tokens))
		return
	}
	for _, token := range tokens {
		l.Step(token)
	}
}

// Step adds one token.
func (l *Line) Step(token []float32) {
	l.seen = append(l.seen, token)
	waiting := len(l.seen) - l.coded
	switch {
	case l.policy.Whole && waiting >= max(l.policy.Residual, 2):
		l.code(waiting)
	case !l.policy.Whole && waiting >= l.policy.Residual+l.policy.Block:
		l.code(l.policy.Block)
	}
}

// code codes the n oldest tokens that are exact and no sinks. Each token is coded once.
func (l *Line) code(n int) {
	copy(l.seen[l.coded:], l.coder.Block(l.seen[l.coded:l.coded+n]))
	l.coded += n
}
