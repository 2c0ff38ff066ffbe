package kvq_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/support/exceptions"

	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/testbackend"
	"github.com/kvqbook/kvqbook/internal/testlane"
	. "github.com/kvqbook/kvqbook/kvq"
)

// fedBack is a small cache whose prompt and steps fill blocks, and the same without feedback.
func fedBack() (fed, plain Config) {
	plain = Config{Backend: Blocks, NBits: 2, QGroupSizeKey: 32, QGroupSizeValue: 16, AxisKey: PerChannel, ResidualLength: 5, Sinks: 2,
		RotateKeys: true, QuantizerKey: Unbiased, QuantizerValue: Unbiased, Scales: Scale8}
	fed = plain
	fed.FeedbackKey, fed.FeedbackValue = FeedbackQueries, FeedbackOutput
	return fed, plain
}

// Codes of the prompt, and of what a flush codes later, cost less: keys by what their errors do to
// the scores of the prompt's queries, values by what they do to the output. Scales and zero points
// are those without feedback; so are the keys of a row that had no prompt.
func TestFeedback(t *testing.T) {
	testlane.Slow(t, "compiles two caches")
	fedConfig, plainConfig := fedBack()
	const prompt, slots, late = 75, 120, 75
	shape := Shape{Layers: 1, Batch: 2, KVHeads: 2, HeadDim: 16, Capacity: slots, DType: dtypes.Float32}
	in := makeInputs(3, shape, 4, slots, 7, late) // row 1 is padding until the prompt has passed
	for _, row := range in.rows {                 // queries of few directions
		for _, token := range row.queries[0] {
			for head := range token {
				common := 3 * (token[head][0] + token[head][1])
				for d := range token[head] {
					token[head][d] += common * float32(d%3-1)
				}
			}
		}
	}
	play := func(c Config) (*session, []*tensors.Tensor) {
		s := newSession(t, newPlan(t, c, shape), in)
		s.prompt(prompt)
		before := s.state
		for s.slots < slots {
			s.step(1)
		}
		return s, before
	}
	fed, fedPrompt := play(fedConfig)
	plain, plainPrompt := play(plainConfig)

	of := func(s *session, state []*tensors.Tensor) hostState { return readState(t, s.plan, state) }
	fedState, plainState := of(fed, fed.state), of(plain, plain.state)
	for name, want := range plainState.arrays {
		if !strings.HasSuffix(name, ".scales") && !strings.HasSuffix(name, ".zeros") {
			continue
		}
		got := fedState.arrays[name]
		for i := range want.floats {
			if want.floats[i] != got.floats[i] {
				t.Fatalf("%s differs at %d", name, i)
			}
		}
	}
	for _, moment := range []struct {
		name string
		fed  map[int]*heldToken
		old  map[int]*heldToken
		from int // tokens before it do not count
	}{
		{"the prompt", of(fed, fedPrompt).tokens(t, 0, 0), of(plain, plainPrompt).tokens(t, 0, 0), 0},
		{"what came later", fedState.tokens(t, 0, 0), plainState.tokens(t, 0, 0), prompt - 7},
	} {
		keys, values := costOfErrors(in, moment.fed, moment.from, prompt-7)
		oldKeys, oldValues := costOfErrors(in, moment.old, moment.from, prompt-7)
		if !(keys < 0.8*oldKeys) || !(values < 0.8*oldValues) {
			t.Errorf("%s: errors of keys cost %.3g and of values %.3g, without feedback %.3g and %.3g, wanted a fifth less", moment.name, keys, values, oldKeys, oldValues)
		}
	}
	got, want := fedState.tokens(t, 0, 1), plainState.tokens(t, 0, 1)
	coded := 0
	for i, tok := range want {
		if tok.place != inCodes {
			continue
		}
		coded++
		for head := range tok.keys {
			if worstOf(got[i].keys[head], tok.keys[head]) != 0 {
				t.Fatalf("the row without a prompt has other keys than without feedback, at token %d", i)
			}
		}
	}
	if coded == 0 {
		t.Error("nothing of the row without a prompt is coded")
	}
}

// costOfErrors sums over the coded tokens of row 0, from one on, what errors of keys do to the
// scores of the first tokens' queries, squared, and what errors of values cost by weightOf.
func costOfErrors(in *inputs, held map[int]*heldToken, from, queries int) (keys, values float64) {
	data := in.rows[0]
	for i, tok := range held {
		if tok.place != inCodes || i < from {
			continue
		}
		for head := range tok.keys {
			for _, q := range data.queries[0][:queries] {
				for _, query := range q[2*head : 2*head+2] {
					sum := 0.0
					for d, x := range tok.keys[head] {
						sum += float64(query[d]) * (x - float64(data.keys[0][i][head][d]))
					}
					keys += sum * sum
				}
			}
			sum := 0.0
			for d, x := range tok.values[head] {
				e := x - float64(data.values[0][i][head][d])
				values += 3 * e * e
				sum += e * float64(2*d%5-2)
			}
			values += sum * sum
		}
	}
	return keys, values
}

// What a model forgets to say is said, not coded without.
func TestFeedbackNeedsWeigh(t *testing.T) {
	config, _ := fedBack()
	shape := Shape{Layers: 1, Batch: 1, KVHeads: 2, HeadDim: 16, Capacity: 64, DType: dtypes.Float32}
	for _, c := range []struct {
		name, want string
		play       func(layer LayerCache, x *Node)
	}{
		{"no Weigh", "want Weigh between Append and Attend", func(layer LayerCache, x *Node) {
			layer.Append(x, x)
			layer.Attend(x)
		}},
		{"no Attend", "want Attend in the step of the prompt", func(layer LayerCache, x *Node) { layer.Append(x, x) }},
		{"another shape", "want (Float32)[2, 16, 16]", func(layer LayerCache, x *Node) {
			layer.Append(x, x)
			layer.Weigh(func() *Node { return x })
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			plan := newPlan(t, config, shape)
			err := exceptions.TryCatch[error](func() {
				MustNewExec(testbackend.XLA(t), func(start *Node) []*Node {
					cache := plan.Init(start)
					c.play(cache.Layer(0), gx.Fill(start.Graph(), shapes.Make(dtypes.Float32, 1, 2, 3, 16), 1))
					cache.Advance()
					return cache.Nodes()
				}).MustExec([]int32{0})
			})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

// Settings that have no feedback are refused, and a saved configuration keeps what it has.
func TestFeedbackSettings(t *testing.T) {
	fed, _ := fedBack()
	for _, c := range []struct {
		change func(c *Config)
		want   string
	}{
		{func(c *Config) { c.FeedbackKey = "output" }, `kvq.Config.FeedbackKey: want "queries", "queries+calibrated", "calibrated", "weights" or nothing, got "output"`},
		{func(c *Config) { c.FeedbackValue = "queries" }, `kvq.Config.FeedbackValue: want "output" or nothing, got "queries"`},
		{func(c *Config) { c.QuantizerKey = Symmetric }, `kvq.Config.FeedbackKey: want a quantizer with zero points beside it, got "symmetric"`},
		{func(c *Config) { *c = Tutorial(); c.FeedbackValue = FeedbackOutput }, `kvq.Config.FeedbackValue: feedback needs backend "blocks", got "quanto"`},
	} {
		config := fed
		c.change(&config)
		if err := config.Validate(32); err == nil || err.Error() != c.want {
			t.Errorf("%v, want %s", err, c.want)
		}
	}
	text, err := json.Marshal(fed)
	if err != nil {
		t.Fatal(err)
	}
	var back Config
	if err := json.Unmarshal(text, &back); err != nil || back != fed {
		t.Errorf("%s became %+v (error %v), want %+v", text, back, err, fed)
	}
}
