package kvq_test

import (
	"math"
	"testing"

	"github.com/kvqbook/kvqbook/internal/oracle"
	. "github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/kvq/internal/codes"
	"github.com/kvqbook/kvqbook/kvq/internal/numbers"
)

// checkCodedValues compares coded tokens with what they were. Min-max codes in a cache of float32
// must be those of an ideal cache, made from each row's own tokens alone: had padding, another row
// or another head a vote in a range, they would differ. Others must lie within their step: a format
// that is far from its input shows here, whatever attention averages away.
func checkCodedValues(t *testing.T, r *recording) {
	for layer, l := range r.plan.Inside().Layers {
		for row, data := range r.in.rows {
			for head := range r.plan.Shape().KVHeads {
				for _, s := range []codes.Format{l.Key, l.Value} {
					tokens := headOf(data.values[layer], head)
					if s.Keys {
						tokens = headOf(data.keys[layer], head)
					}
					last := r.moments[len(r.moments)-1]
					of := func(tok *heldToken) (values, steps []float64) {
						if s.Keys {
							return tok.keys[head], tok.stepKeys[head]
						}
						return tok.values[head], tok.stepValues[head]
					}
					if ideal(s) {
						r.seen(r.line(idealCoder(s, r.plan)), tokens, row, func(m moment, seen [][]float32, _ int) {
							for i, tok := range m.held[layer][row] {
								if tok.place != inCodes {
									continue
								}
								values, _ := of(tok)
								if e := worstOf(values, wide(seen[i])); e > 1e-5 {
									t.Fatalf("slot %d, layer %d, row %d, head %d, %s of token %d: %.2g from the ideal cache's", m.slots, layer, row, head, sideName(s), i, e)
								}
							}
						})
					}
					for i, tok := range last.held[layer][row] {
						if tok.place != inCodes {
							continue
						}
						values, steps := of(tok)
						if e, bound := decodedError(s, values, steps, wide(tokens[i])); e > bound*slack(s, r.plan) {
							t.Fatalf("layer %d, row %d, head %d, %s of token %d: error %.3g, wanted at most %.3g", layer, row, head, sideName(s), i, e, bound)
						}
					}
				}
			}
		}
	}
}

// ideal tells whether the oracle has this quantizer, and scales in float32 keep its values.
func ideal(s codes.Format) bool {
	return s.Spec.Quantizer == numbers.MinMax && !s.Rotate && !s.Feedback && (s.Spec.Scales == ScaleFloat32 || s.Spec.Scales == "")
}

func idealCoder(s codes.Format, p *Plan) oracle.Coder {
	round := map[int]oracle.Rounder{4: oracle.Exact}[p.Shape().DType.Size()]
	if round == nil {
		round = map[string]oracle.Rounder{"Float16": oracle.Float16, "BFloat16": oracle.BFloat16}[p.Shape().DType.String()]
	}
	return oracle.Coder{Group: s.Group, PerChannel: s.PerChannel, TokenScales: s.TokenScales, Quantize: func(x []float32) []float32 {
		made, scale, zero := oracle.MinMax(x, s.Bits, round)
		// the cache reads its codes in float32
		return oracle.DequantizeMinMax(made, scale, zero, oracle.Exact)
	}}
}

// decodedError measures decoded values of a token against what they were, and the bound that the
// format keeps. Rotated values are compared as a whole, because their steps belong to rotated
// channels.
func decodedError(s codes.Format, values, steps, want []float64) (worst, bound float64) {
	half := 0.5
	switch {
	case s.HasZeros() && s.Spec.Quantizer != numbers.MinMax:
		// what is cut off, or a shifted zero point: no farther than the range
		half = math.Ldexp(1, s.Bits)
	case s.Feedback: // the error of other channels comes on top, within the range
		half = math.Ldexp(1, s.Bits)
	case s.Spec.Quantizer == numbers.Float8:
		half = 16 // neighbours among the largest of 448 are 32 apart
	}
	if !s.Rotate {
		for d := range values {
			e := math.Abs(values[d]-want[d]) - 1e-6*math.Abs(want[d])
			if limit := half*1.02*steps[d] + 1e-6; e-limit > worst-bound || d == 0 {
				worst, bound = e, limit
			}
		}
		return worst, bound
	}
	for d := range values {
		worst += (values[d] - want[d]) * (values[d] - want[d])
		bound += half * half * 1.1 * steps[d] * steps[d]
	}
	return math.Sqrt(worst), math.Sqrt(bound) + 1e-6
}

// slack is for quanto's arithmetic in narrow dtypes: positions in a range of 2^bits steps, rounded
// three times to the dtype's precision.
func slack(s codes.Format, p *Plan) float64 {
	precision := map[string]int{"Float16": 11, "BFloat16": 8}[p.Shape().DType.String()]
	if p.Config().Backend != Quanto || precision == 0 {
		return 1
	}
	return 1 + 3*math.Ldexp(1, s.Bits-precision)
}

func worstOf(a, b []float64) (worst float64) {
	for i := range a {
		worst = max(worst, math.Abs(a[i]-b[i]))
	}
	return worst
}

// checkBitsUsed compares the advertised bits a value with the formula, and looks at every group for
// codes that vary: a group that was coded one token at a time has a range of nothing, its codes
// carry no information, and the bytes are wasted (KIVI's trap).
func checkBitsUsed(t *testing.T, r *recording) {
	if !r.config.Quantized() {
		if got, want := r.plan.BitsPerValue(), float64(8*r.plan.Shape().DType.Size()); got != want {
			t.Errorf("%v bits a value, wanted %v", got, want)
		}
		return
	}
	var want float64
	last := r.moments[len(r.moments)-1]
	for layer, l := range r.plan.Inside().Layers {
		for _, s := range []codes.Format{l.Key, l.Value} {
			scaleBits, group, bits := map[ScaleFormat]float64{ScaleFloat32: 32, ScaleFloat16: 16, ScaleBFloat16: 16, Scale8: 8}[s.Spec.Scales], s.Group, s.Bits
			if s.Spec.Scales == "" {
				scaleBits = float64(8 * r.plan.Shape().DType.Size())
			}
			codeBits := float64(bits)
			if !s.Packed {
				group, codeBits = s.HeadDim, 8
			} else if rows, _ := s.Matrix(); s.Keys && rows*bits%8 != 0 { // codes of padding
				codeBits *= float64(rows+8-rows%8) / float64(rows)
			}
			if s.HasZeros() {
				scaleBits *= 2 // and a zero point
			}
			total := codeBits + scaleBits/float64(group)
			if s.TokenScales {
				total += 8 / float64(s.HeadDim)
			}
			want += total / float64(2*len(r.plan.Inside().Layers))
			for row := range r.in.rows {
				for head := range r.plan.Shape().KVHeads {
					requireCodesVary(t, r, s, last.held[layer][row], head)
				}
			}
		}
	}
	if got := r.plan.BitsPerValue(); math.Abs(got-want) > 1e-9 {
		t.Errorf("%v bits a value, the formula says %v", got, want)
	}
}

// requireCodesVary fails where a group of coded values uses few of the codes it has.
func requireCodesVary(t *testing.T, r *recording, s codes.Format, held map[int]*heldToken, head int) {
	t.Helper()
	type group struct{ slots, channels int }
	found, size := map[group]map[int]bool{}, map[group]int{}
	for _, tok := range held {
		if tok.place != inCodes {
			continue
		}
		values, steps := tok.values[head], tok.stepValues
		if s.Keys {
			values, steps = tok.keys[head], tok.stepKeys
		}
		if s.Rotate {
			values = rotated(values)
		}
		for d, v := range values {
			g := group{tok.slot, d / (len(values) / s.Groups())}
			if s.PerChannel {
				g = group{tok.slot / s.Group, d}
			}
			if found[g] == nil {
				found[g] = map[int]bool{}
			}
			size[g]++
			found[g][int(math.Round(v/steps[head][d]*1e3))] = true
		}
	}
	for g, used := range found {
		if want := max(2, min(1<<s.Bits, size[g])/4); size[g] >= 8 && len(used) < want {
			t.Fatalf("%s group %+v of %d values uses %d codes, wanted %d at least", sideName(s), g, size[g], len(used), want)
		}
	}
}
