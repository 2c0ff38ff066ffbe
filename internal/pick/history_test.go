package pick

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/graph"

	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/testbackend"
	"github.com/kvqbook/kvqbook/internal/testlane"
)

var inf = float32(math.Inf(1))

// MinPLogitsWarper of transformers 4.57 by hand: of probabilities 0.5, 0.25, 0.2 and 0.05, those of
// at least 0.45 · 0.5 = 0.225 stay; 0.4 keeps 0.2 as well, as its edge, and 1 the best alone.
func TestMinPByHand(t *testing.T) {
	logs := func(p ...float64) (out []float32) {
		for _, x := range p {
			out = append(out, float32(math.Log(x)))
		}
		return out
	}
	x := [][]float32{logs(0.5, 0.25, 0.2, 0.05), logs(0.05, 0.2, 0.25, 0.5)}
	exec := graph.MustNewExec(testbackend.XLA(t), minP)
	for p, keep := range map[float32]int{0.45: 2, 0.3999: 3, 0.09: 4, 1: 1, 1e-9: 4} {
		got := exec.MustExec1(x, p).Value().([][]float32)
		for i := range 4 {
			want, mirrored := x[0][i], x[1][3-i]
			if i >= keep {
				want, mirrored = -inf, -inf
			}
			if got[0][i] != want || got[1][3-i] != mirrored {
				t.Errorf("min_p %g: token %d of either side became %g and %g, want %g", p, i, got[0][i], got[1][3-i], want)
			}
		}
	}
}

// RepetitionPenaltyLogitsProcessor of transformers 4.57 by hand, with a penalty of 2: what stands
// in the text once or more, 3 becomes 1.5 and -3 becomes -6; 0, infinities and the others stay.
func TestPenaltyByHand(t *testing.T) {
	x := [][]float32{{3, 3, 3, -3, -3, 0, -inf}, {1, 2, 3, 4, -5, 6, 7}}
	counts := [][]int32{{0, 1, 7, 0, 1, 2, 1}, {0, 0, 0, 1, 1, 0, 0}}
	want := [][]float32{{3, 1.5, 1.5, -3, -6, 0, -inf}, {1, 2, 3, 2, -10, 6, 7}}
	got := graph.MustExecOnce(testbackend.XLA(t), penalize, x, counts, float32(2)).Value().([][]float32)
	for i := range want {
		if !slices.Equal(got[i], want[i]) {
			t.Errorf("row %d: %v, want %v", i, got[i], want[i])
		}
	}
}

// penalized is the same in plain Go: the logits after text, of which the last window tokens count.
func penalized(logits []float32, text []int32, window int, penalty float32) []float32 {
	if window > 0 {
		text = text[max(0, len(text)-window):]
	}
	out := slices.Clone(logits)
	for id, x := range logits {
		switch {
		case !slices.Contains(text, int32(id)):
		case x < 0:
			out[id] = x * penalty
		default:
			out[id] = x / penalty
		}
	}
	return out
}

// The history of a loop, over calls of several picks each, penalizes what the plain text does:
// windows shorter and longer than a call and than the text, and the whole of it; ids that come
// again.
func TestHistoryEqualsTheText(t *testing.T) {
	const rows, v, steps, penalty = 2, 11, 7, 2
	random := rand.New(rand.NewPCG(8, 9))
	windows := []int{0, 3}
	if testlane.All() {
		windows = append(windows, 1, 7, 40)
	}
	for _, window := range windows {
		p := New(Settings{Penalty: penalty, Window: window}, rows, v)
		texts := [][]int32{{4, 4, 1, 9}, {0}}
		for row, text := range texts {
			p.Saw(row, text...)
		}
		n := len(p.Kind.historyShapes(rows))
		exec := graph.MustNewExec(testbackend.XLA(t), func(in []*graph.Node) []*graph.Node {
			logits, list := in[0], []*graph.Node{in[1]}
			settings := p.Kind.Inputs(in[2:])
			var out []*graph.Node
			for step := range steps {
				at := gx.Scalar(logits.Graph(), dtypes.Int32, step)
				out = append(out, penalize(logits, settings.History.Counts, p.Kind.setting(settings.Penalty)))
				token := graph.Reshape(gx.DynamicSlice(list[0], []*graph.Node{at, gx.Scalar(at.Graph(), dtypes.Int32, 0)}, []int{1, rows}), rows)
				settings = p.Kind.WithHistory(settings, settings.History.After(token, at).Nodes())
			}
			return out
		})
		for call := range 4 {
			logits, tokens := randomLogits(rows, v, uint64(call)), make([][]int32, steps)
			for step := range tokens {
				for range rows {
					tokens[step] = append(tokens[step], random.Int32N(v))
				}
			}
			in := p.Inputs(0, steps, steps)
			if len(in) != 3+1+n {
				t.Fatalf("%d inputs, want settings and %d of the history", len(in), n)
			}
			out := exec.MustExec(append([]any{logits, tokens}, in...)...)
			for step := range steps {
				got := out[step].Value().([][]float32)
				for row := range rows {
					if want := penalized(logits[row], texts[row], window, penalty); !slices.Equal(got[row], want) {
						t.Fatalf("window %d, call %d, step %d, row %d after %v: %v, want %v", window, call, step, row, texts[row], got[row], want)
					}
					texts[row] = append(texts[row], tokens[step][row])
				}
			}
			for row := range rows {
				p.Saw(row, texts[row][len(texts[row])-steps:]...)
			}
		}
	}
}

// What is not asked for is not in the graph: its inputs and so its key stay as they were.
func TestNothingMoreByDefault(t *testing.T) {
	plain := New(Settings{Sample: true, Temperature: 1, TopP: 1}, 2, 9).Kind
	for _, s := range []Settings{{Sample: true, Temperature: 1, TopP: 1, Penalty: 1, Window: 64}, {Sample: true, Temperature: 1, TopP: 1, Window: 5}} {
		if got := New(s, 2, 9).Kind; got != plain || len(got.Shapes(4, 2)) != 7 {
			t.Errorf("%+v makes %+v with inputs %v, want %+v", s, got, got.Shapes(4, 2), plain)
		}
	}
	if greedy := New(Settings{MinP: 0.5}, 2, 9).Kind; len(greedy.Shapes(4, 2)) != 3 {
		t.Errorf("a greedy pick takes %v", greedy.Shapes(4, 2))
	}
}

// Rows with settings of their own pick what each picks alone with these; a temperature of 0 is a
// greedy row.
func TestRowsOfTheirOwnSettings(t *testing.T) {
	testlane.OnlyAll(t, "compiles a graph for each row; llama.TestBatchRowsAnswerAlone goes the same way")
	const v, step = 60, 1
	logits := randomLogits(3, v, 12)
	settings := []Settings{
		{Sample: true, Temperature: 0.7, TopK: 9, TopP: 0.8, MinP: 0.01, Seed: 3, MinNew: 5, EOS: []int32{7}},
		{Sample: true, Temperature: 1.3, TopP: 1, Seed: 4, EOS: []int32{7}},
		{EOS: []int32{7}, MinNew: 1},
	}
	rows := make([]*Picker, len(settings))
	var want []int32
	for row, s := range settings {
		rows[row] = New(s, 1, v)
		kind := rows[row].Kind
		alone := graph.MustNewExec(testbackend.XLA(t), func(in []*graph.Node) *graph.Node {
			return kind.Pick(in[0], gx.Scalar(in[0].Graph(), dtypes.Int32, step), kind.Inputs(in[1:]))
		})
		one := New(s, 1, v)
		want = append(want, alone.MustExec1(append([]any{[][]float32{logits[row]}}, one.Inputs(2, 2, 2)...)...).Value().([]int32)[0])
	}
	together := Together(rows)
	exec := graph.MustNewExec(testbackend.XLA(t), func(in []*graph.Node) *graph.Node {
		return together.Pick(in[0], gx.Scalar(in[0].Graph(), dtypes.Int32, step), together.Inputs(in[1:]))
	})
	got := exec.MustExec1(append([]any{logits}, InputsTogether(together, rows, []int{2, 2, 2}, 2, 2)...)...).Value().([]int32)
	if !slices.Equal(got, want) {
		t.Errorf("together %v, alone %v", got, want)
	}
}

// Settings above 0 that float32 has no room for pick what the smallest that it has do: the most
// likely token, alone and beside other rows. 1e-38 is a number of float32, but a logit divided by
// it is none.
func TestSettingsNearZero(t *testing.T) {
	testlane.Slow(t, "compiles two graphs for each setting")
	logits := [][]float32{{-3, 40, 7, 39, -inf}}
	for name, s := range map[string]Settings{
		"temperature 1e-300": {Sample: true, Temperature: 1e-300, TopP: 1},
		"temperature 1e-38":  {Sample: true, Temperature: 1e-38, TopP: 1},
		"top_p 1e-300":       {Sample: true, Temperature: 100, TopP: 1e-300},
		"all":                {Sample: true, Temperature: 1e-320, TopP: 1e-320, MinP: 1e-320, TopK: 3},
		"penalty 1e-300":     {Sample: true, Temperature: 1, TopP: 1, Penalty: 1e-300},
	} {
		pickers := []*Picker{New(s, 1, 5)}
		pickers[0].Saw(0, 1) // so that a small penalty makes the best token better still
		alone, together := pickers[0].Kind, Together(pickers)
		for form, c := range map[string]struct {
			kind Kind
			in   []any
		}{
			"alone":    {alone, pickers[0].Inputs(0, 1, 1)},
			"together": {together, InputsTogether(together, pickers, []int{0}, 1, 1)},
		} {
			got := graph.MustExecOnce(testbackend.XLA(t), func(in []*graph.Node) *graph.Node {
				return c.kind.Pick(in[0], gx.Scalar(in[0].Graph(), dtypes.Int32, 0), c.kind.Inputs(in[1:]))
			}, append([]any{logits}, c.in...)...).Value().([]int32)
			if got[0] != 1 {
				t.Errorf("%s, %s: token %d, want 1", name, form, got[0])
			}
		}
	}
}
