package oracle_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/kvqbook/kvqbook/internal/golden"
	"github.com/kvqbook/kvqbook/internal/oracle"
)

// The ideal cache replays transformers' QuantizedCache step by step.
//
// transformers codes everything anew at each flush. Along axis 0 with groups inside the head
// dimension that gives the same codes again, and scales that move by a unit in the last place:
// values agree to 1e-5. Traces with other groups (across tokens, heads and rows), hqq's (whose stop
// rule looks at all rows at once) and chunks (which 4.57 does not count) are not this cache's.
func TestLineReplaysTransformers(t *testing.T) {
	for _, dir := range golden.Dirs(t) {
		var index struct {
			Traces []struct {
				Name           string
				Backend        string
				B, H, D        int
				Prefill, Steps int
				Chunk, NBits   int
				Group          int `json:"q_group_size"`
				Residual       int `json:"residual_length"`
				AxisKey        int `json:"axis_key"`
				AxisValue      int `json:"axis_value"`
			}
		}
		golden.JSON(t, &index, dir, "trace", "traces.json")
		values := golden.Safetensors(t, dir, "trace", "traces.safetensors")
		replayed := 0
		for _, tr := range index.Traces {
			if tr.Backend != "quanto" || tr.AxisKey != 0 || tr.AxisValue != 0 || tr.D%tr.Group != 0 || tr.Chunk != 1 {
				continue
			}
			replayed++
			for _, side := range []string{"k", "v"} {
				lines := make([]*oracle.Line, tr.B*tr.H)
				for i := range lines {
					lines[i] = oracle.NewLine(oracle.Policy{Whole: true, Residual: tr.Residual}, oracle.MinMaxCoder(tr.NBits, tr.Group, false))
				}
				for step := range tr.Steps + 1 {
					in := values[fmt.Sprintf("%s.%d.%s_in", tr.Name, step, side)]
					want := values[fmt.Sprintf("%s.%d.%s_ret", tr.Name, step, side)]
					for i, line := range lines {
						came := tokensOf(in, i)
						got := slices.Concat(append(slices.Clone(line.Seen()), came...)...)
						for j, w := range slices.Concat(tokensOf(want, i)...) {
							if j >= len(got) || math.Abs(float64(got[j]-w)) > 1e-5 {
								t.Fatalf("%s, step %d, %s of line %d, element %d of %d: wanted %v", tr.Name, step, side, i, j, len(got), w)
							}
						}
						if step == 0 {
							line.Prompt(came)
						} else {
							line.Step(came[0])
						}
					}
				}
			}
		}
		if replayed == 0 {
			t.Errorf("%s: no trace was replayed", dir)
		}
	}
}

// tokensOf returns the tokens of line i of an array [B, H, T, D].
func tokensOf(a golden.Array, i int) [][]float32 {
	t, d := a.Shape[2], a.Shape[3]
	var out [][]float32
	for j := range t {
		out = append(out, a.Floats[(i*t+j)*d:(i*t+j+1)*d])
	}
	return out
}

// By hand: 2 sinks, a window of 3, blocks of 2, a coder that marks what it codes.
func TestLineByHand(t *testing.T) {
	mark := oracle.Coder{Group: 1, Quantize: func(x []float32) []float32 { return []float32{-x[0]} }}
	line := oracle.NewLine(oracle.Policy{Residual: 3, Block: 2, Sinks: 2}, mark)
	line.Prompt([][]float32{{1}, {2}, {3}, {4}, {5}, {6}})
	var history []string
	for next := 7; next <= 10; next++ {
		history = append(history, fmt.Sprint(slices.Concat(line.Seen()...)))
		line.Step([]float32{float32(next)})
	}
	// After 7 tokens, 3..7 are five that are no sinks: two more than the window, so 3 and 4 are
	// coded; after 9, 5 and 6.
	want := "[1 2 3 4 5 6] [1 2 -3 -4 5 6 7] [1 2 -3 -4 5 6 7 8] [1 2 -3 -4 -5 -6 7 8 9]"
	if got := strings.Join(history, " "); got != want {
		t.Errorf("seen before each step:\n%s, wanted\n%s", got, want)
	}
}

func TestCoderByHand(t *testing.T) {
	// Groups marked by their sum: per token over 2 channels, per channel over 2 tokens (the last
	// group is a single token).
	sum := func(x []float32) []float32 {
		out := make([]float32, len(x))
		for i := range out {
			for _, v := range x {
				out[i] += v
			}
		}
		return out
	}
	tokens := [][]float32{{1, 2}, {3, 4}, {5, 6}}
	if got := fmt.Sprint(oracle.Coder{Group: 2, Quantize: sum}.Block(tokens)); got != "[[3 3] [7 7] [11 11]]" {
		t.Errorf("per token: %v", got)
	}
	if got := fmt.Sprint(oracle.Coder{Group: 2, PerChannel: true, Quantize: sum}.Block(tokens)); got != "[[4 6] [4 6] [5 6]]" {
		t.Errorf("per channel: %v", got)
	}
}

// By hand: D = 1, so scores are q·k. Keys 0, ln 2, ln 4 with the query 1 weigh 1 : 2 : 4.
func TestAttentionByHand(t *testing.T) {
	k := oracle.Tensor{Shape: []int{1, 1, 3, 1}, Data: []float64{0, math.Log(2), math.Log(4)}}
	v := oracle.Tensor{Shape: []int{1, 1, 3, 1}, Data: []float64{7, 70, 700}}
	q := oracle.Tensor{Shape: []int{1, 2, 2, 1}, Data: []float64{1, 1, 0, 0}}
	for _, c := range []struct {
		name          string
		start, window int
		// head 0: second and third token; head 1 likewise, with equal weights
		want []float64
	}{
		{"causal", 0, 0, []float64{(7 + 140) / 3., (7 + 140 + 2800) / 7., 77 / 2., 777 / 3.}},
		{"padding", 1, 0, []float64{70, (140 + 2800) / 6., 70, 770 / 2.}},
		{"window", 0, 2, []float64{(7 + 140) / 3., (140 + 2800) / 6., 77 / 2., 770 / 2.}},
		{"padding query", 2, 0, []float64{0, 700, 0, 700}},
	} {
		got := oracle.Attention(q, k, v, []int{c.start}, c.window)
		for i, w := range c.want {
			if math.Abs(got.Data[i]-w) > 1e-12 {
				t.Errorf("%s: %v, wanted %v", c.name, got.Data, c.want)
				break
			}
		}
	}
}

// By hand: D = 1, two query heads on one key/value head. The query 1 of the newest token sees keys
// 0, ln 2, ln 4 as before; each option changes what they weigh.
func TestScoresByHand(t *testing.T) {
	k := oracle.Tensor{Shape: []int{1, 1, 3, 1}, Data: []float64{0, math.Log(2), math.Log(4)}}
	v := oracle.Tensor{Shape: []int{1, 1, 3, 1}, Data: []float64{7, 70, 700}}
	q := oracle.Tensor{Shape: []int{1, 2, 1, 1}, Data: []float64{1, 1}}
	start := []int{0}
	capped := math.Exp(math.Tanh(math.Log(2))) // tanh(ln 2) = 3/5
	capped4 := math.Exp(math.Tanh(math.Log(4)))
	for _, c := range []struct {
		name   string
		scores oracle.Scores
		want   [2]float64 // of both heads
	}{
		{"scale", oracle.Scores{Scale: 2}, [2]float64{(7 + 4*70 + 16*700) / 21., (7 + 4*70 + 16*700) / 21.}},
		{"soft cap", oracle.Scores{SoftCap: 1}, [2]float64{(7 + capped*70 + capped4*700) / (1 + capped + capped4), (7 + capped*70 + capped4*700) / (1 + capped + capped4)}},
		// head 0: all weigh the same; head 1: the farther, the more
		{"slopes", oracle.Scores{Slopes: []float64{-math.Log(2), 0}}, [2]float64{(4*7 + 4*70 + 4*700) / 12., (7 + 140 + 2800) / 7.}},
		{"places", oracle.Scores{Slopes: []float64{math.Log(2), 0}, Place: func(_, slot int) int { return min(slot, 1) }}, [2]float64{(0.5*7 + 2*70 + 4*700) / 6.5, (7 + 140 + 2800) / 7.}},
		{"sees", oracle.Scores{Sees: func(_, head, query, key int) bool { return head == 0 && key < query || key == 0 }}, [2]float64{(7 + 140) / 3., 7}},
		{"bias", oracle.Scores{Bias: func(_, head, _, key int) float64 { return math.Log(float64(1 + head*key)) }}, [2]float64{(7 + 140 + 2800) / 7., (7 + 2*140 + 3*2800) / (1 + 4 + 12.)}},
	} {
		c.scores.Start = start
		got := c.scores.Attention(q, k, v)
		for i, w := range c.want {
			if math.Abs(got.Data[i]-w) > 1e-9 {
				t.Errorf("%s: %v, wanted %v", c.name, got.Data, c.want)
				break
			}
		}
	}
	// Two queries of another sequence see all three keys.
	two := oracle.Tensor{Shape: []int{1, 1, 2, 1}, Data: []float64{0, 1}}
	if got := (oracle.Scores{Start: start, Cross: true}).Attention(two, k, v).Data; math.Abs(got[0]-259) > 1e-9 || math.Abs(got[1]-421) > 1e-9 {
		t.Errorf("cross: %v, wanted 259 and 421", got)
	}
}
