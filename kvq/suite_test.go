package kvq_test

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/kvqbook/kvqbook/internal/oracle"
	"github.com/kvqbook/kvqbook/internal/testlane"
	. "github.com/kvqbook/kvqbook/kvq"
)

// suiteCase is one kind of cache. Every test of the suite runs over all of them.
type suiteCase struct {
	name    string
	config  Config
	dtype   dtypes.DType
	dim     int // head dimension
	sliding int
	// deep cases also run what needs compilations of its own: loops, chunks, the other attention
	// path, other batches.
	deep  bool
	quick bool // also in the quick lane: one case of every form
}

func blocks(bits int, change func(c *Config)) Config {
	c := Config{Backend: Blocks, NBits: bits, QGroupSize: 32, ResidualLength: 6}
	if change != nil {
		change(&c)
	}
	return c
}

func perChannelKeys(c *Config) { c.AxisKey = PerChannel }

func withoutFeedback(c Config) Config {
	c.FeedbackKey = NoFeedback
	return c
}

// presetOf is a preset with a window that short tests can fill.
func presetOf(t testing.TB, name string) Config {
	t.Helper()
	c, err := Preset(name)
	if err != nil {
		t.Fatal(err)
	}
	c.ResidualLength = 5
	return c
}

func suiteCases(t testing.TB) []suiteCase {
	f32, f16, bf16 := dtypes.Float32, dtypes.Float16, dtypes.BFloat16
	quanto := func(bits, residual int) Config {
		return Config{Backend: Quanto, NBits: bits, QGroupSize: 32, ResidualLength: residual}
	}
	return []suiteCase{
		{name: "full precision", quick: true, dtype: f32, dim: 32, deep: true},
		{name: "full precision bfloat16, sliding", dtype: bf16, dim: 32, sliding: 20},
		{name: "quanto 4 bit", quick: true, config: quanto(4, 9), dtype: f32, dim: 32, deep: true},
		{name: "quanto 2 bit float16", config: quanto(2, 16), dtype: f16, dim: 64},
		{name: "quanto 8 bit bfloat16", config: quanto(8, 1), dtype: bf16, dim: 32},
		{name: "quanto keys per channel", config: Config{Backend: Quanto, NBits: 4, QGroupSize: 32, ResidualLength: 32, AxisKey: PerChannel}, dtype: f32, dim: 32},
		{name: "hqq 4 bit", config: Config{Backend: HQQ, NBits: 4, QGroupSize: 16, ResidualLength: 8, AxisKey: 1, AxisValue: 1}, dtype: f32, dim: 32},
		{name: "blocks 2 bit, float32 scales", config: blocks(2, func(c *Config) { c.Scales = ScaleFloat32 }), dtype: f32, dim: 32},
		{name: "blocks 3 bit keys per channel, sinks", config: blocks(3, func(c *Config) { perChannelKeys(c); c.Sinks = 4 }), dtype: f32, dim: 32, deep: true},
		{name: "blocks 4 bit, sliding", config: blocks(4, perChannelKeys), dtype: f32, dim: 64, sliding: 50},
		{name: "blocks 5 bit, both per channel, float16", config: blocks(5, func(c *Config) { perChannelKeys(c); c.AxisValue = PerChannel }), dtype: f16, dim: 32},
		{name: "blocks 6 bit, no window", config: blocks(6, func(c *Config) { c.ResidualLength, c.QGroupSize = 0, 16 }), dtype: f32, dim: 16 * 3, sliding: 0},
		{name: "blocks 8 bit, rotated, bfloat16 scales", config: blocks(8, func(c *Config) { c.RotateKeys, c.RotateValues, c.Scales = true, true, ScaleBFloat16 }), dtype: f32, dim: 32},
		{name: "symmetric", config: blocks(4, func(c *Config) { c.QuantizerKey, c.QuantizerValue = Symmetric, Symmetric }), dtype: bf16, dim: 32},
		{name: "int8 keys, float8 values", config: blocks(0, func(c *Config) { c.QuantizerKey, c.QuantizerValue = Int8, Float8 }), dtype: f32, dim: 32},
		{name: "float8 keys, int8 values, float16", config: blocks(0, func(c *Config) { c.QuantizerKey, c.QuantizerValue = Float8, Int8 }), dtype: f16, dim: 32},
		{name: "hqq's zero points, keys per channel", config: blocks(4, func(c *Config) { perChannelKeys(c); c.QuantizerKey, c.QuantizerValue = HalfQuadratic, HalfQuadratic }), dtype: f32, dim: 32, deep: true},
		{name: "other bits by layer, 8-bit scales", config: blocks(3, func(c *Config) { perChannelKeys(c); c.NBitsValue, c.LayerBits, c.Scales = 2, "1=8/6", Scale8 }), dtype: f32, dim: 32},
		{name: "groups of 64 and 32 tokens", config: blocks(4, func(c *Config) { perChannelKeys(c); c.AxisValue, c.QGroupSizeKey = PerChannel, 64 }), dtype: f32, dim: 32},
		{name: "preset quality", config: presetOf(t, "quality"), dtype: f32, dim: 64},
		{name: "preset balanced", quick: true, config: presetOf(t, "balanced"), dtype: f32, dim: 64, deep: true},
		{name: "preset smallest", config: presetOf(t, "smallest"), dtype: bf16, dim: 64},
		{name: "preset lower", config: presetOf(t, "lower"), dtype: f16, dim: 64},
		{name: "preset lowest", config: presetOf(t, "lowest"), dtype: f32, dim: 64},
		{name: "keys per channel and token", config: blocks(3, func(c *Config) { perChannelKeys(c); c.TokenScales, c.Scales = true, ScaleFloat32 }), dtype: f32, dim: 32},
		{name: "preset smallest, float32", config: presetOf(t, "smallest"), dtype: f32, dim: 64, deep: true},
		{name: "preset smallest, no feedback", config: withoutFeedback(presetOf(t, "smallest")), dtype: f32, dim: 64, deep: true},
		{name: "feedback, keys per channel, rotated, sinks", config: blocks(4, func(c *Config) {
			perChannelKeys(c)
			c.Sinks, c.RotateKeys, c.RotateValues, c.QuantizerKey = 4, true, true, Unbiased
			c.FeedbackKey, c.FeedbackValue = FeedbackQueries, FeedbackOutput
		}), dtype: f32, dim: 32, deep: true},
		{name: "feedback of keys per token, float16", config: blocks(3, func(c *Config) { c.FeedbackKey, c.QGroupSize = FeedbackQueries, 10 }), dtype: f16, dim: 20},
		{name: "calibrated feedback, keys per channel, rotated, token scales", config: blocks(4, func(c *Config) {
			perChannelKeys(c)
			c.Sinks, c.RotateKeys, c.TokenScales, c.QuantizerKey, c.FeedbackKey = 4, true, true, Unbiased, FeedbackCalibrated
		}), dtype: f32, dim: 32, deep: true},
		{name: "mixed feedback, keys per channel, rotated", config: blocks(4, func(c *Config) {
			perChannelKeys(c)
			c.RotateKeys, c.FeedbackKey = true, FeedbackMixed
		}), dtype: f32, dim: 32, deep: true},
		{name: "feedback by weights, of keys per token, bfloat16", config: blocks(4, func(c *Config) { c.FeedbackKey, c.QGroupSize = FeedbackWeights, 10 }), dtype: bf16, dim: 20},
		// TestEveryHead has more of such
		{name: "blocks 5 bit keys per channel, heads of 20", config: blocks(5, func(c *Config) { perChannelKeys(c); c.Scales = ScaleFloat32 }), dtype: f32, dim: 20},
	}
}

func (c suiteCase) shape(batch, capacity int) Shape {
	layers := 1
	if !c.config.Quantized() || c.config.Sinks > 0 && c.config.NBits > 0 || c.config.LayerBits != "" {
		layers = 2 // one layer must not answer for another
	}
	return Shape{Layers: layers, Batch: batch, KVHeads: 2, HeadDim: c.dim, Capacity: capacity, DType: c.dtype, SlidingWindow: c.sliding}
}

// fitted is the configuration with groups that divide the dimension.
func (c suiteCase) fitted() Config { return c.config.For(c.dim) }

const (
	suiteHeads    = 4
	suiteCapacity = 200
)

// suiteStart is the padding of the rows.
var suiteStart = []int{0, 5, 17}

// moment is a cache after a step.
type moment struct {
	t     int // slots of the step
	slots int
	held  [][]map[int]*heldToken // [layer][row]
}

// recording is a prompt and many single steps, with all that the cache held and answered.
type recording struct {
	suiteCase
	*session
	moments []moment
}

// record plays a prompt of 41 slots and steps up to 140, through every boundary of window and
// blocks. It compares each attention with the oracle's on the way. on is the backend; nil: XLA.
func (c suiteCase) record(t *testing.T, on compute.Backend) *recording {
	t.Helper()
	shape := c.shape(len(suiteStart), suiteCapacity)
	r := &recording{suiteCase: c, session: newSession(t, newPlan(t, c.fitted(), shape), makeInputs(1, shape, suiteHeads, suiteCapacity, suiteStart...))}
	r.on = on
	r.prompt(41)
	r.moments = append(r.moments, moment{41, 41, r.held()})
	// a prompt attends to itself exactly
	r.requireAttention("prompt", 41, func(layer int) oracle.Tensor { return r.uncached(layer, 41) })
	for r.slots < 140 {
		r.step(1)
		m := moment{1, r.slots, r.held()}
		r.moments = append(r.moments, m)
		r.requireAttention("step", 1, func(layer int) oracle.Tensor { return r.expected(layer, 1, m.held[layer]) })
	}
	return r
}

// tolerance of an attention output against float64: rounding of sums in float32; in narrow caches,
// of queries and weights to the dtype.
func (c suiteCase) tolerance() float64 {
	switch c.dtype {
	case dtypes.Float16:
		return 8e-3
	case dtypes.BFloat16:
		return 6e-2
	}
	return 3e-5
}

// requireAttention compares the outputs of the last step with want. Queries that are padding have
// no right answer, but are finite.
func (r *recording) requireAttention(what string, t int, want func(layer int) oracle.Tensor) {
	r.t.Helper()
	for layer, got := range r.out {
		if worst, at := worstAttention(r.session, t, got, want(layer)); worst > r.tolerance() {
			r.t.Errorf("%s of %d at slot %d, layer %d: attention is off by %.2g at %s, wanted at most %.2g", what, t, r.slots, layer, worst, at, r.tolerance())
		}
	}
}

// worstAttention is the largest difference of two outputs [B, H, t, D] over the queries that are no
// padding; infinite for anything that is not finite, padding too.
func worstAttention(s *session, t int, got, want oracle.Tensor) (worst float64, at string) {
	for b, start := range s.in.start {
		for head := range s.in.heads {
			for i := range t {
				for d, x := range got.Row(b, head, i) {
					e := math.Abs(x - want.Row(b, head, i)[d])
					if slot := s.slots - t + i; slot < start {
						e = 0
					}
					if math.IsNaN(x) || math.IsInf(x, 0) {
						e = math.Inf(1)
					}
					if e > worst || at == "" {
						worst, at = e, fmt.Sprintf("row %d, head %d, query %d, channel %d", b, head, i, d)
					}
				}
			}
		}
	}
	return worst, at
}

// likeOthers are cases whose every property another case has too.
var likeOthers = []string{
	"quanto 2 bit float16", "quanto 8 bit bfloat16", "blocks 4 bit, sliding", "blocks 5 bit, both per channel, float16",
	"preset smallest, no feedback", "blocks 6 bit, no window", "float8 keys, int8 values, float16", "groups of 64 and 32 tokens", "preset quality",
}

// slowToCompile are cases that other tests of the default lane stand for.
var slowToCompile = []string{"feedback, keys per channel, rotated, sinks", "feedback of keys per token, float16",
	"calibrated feedback, keys per channel, rotated, token scales", "feedback by weights, of keys per token, bfloat16",
	"mixed feedback, keys per channel, rotated", "preset smallest", "preset smallest, float32", "preset lower"}

// TestSuite runs every kind of cache through a prompt and a hundred steps and checks, named by
// behaviour, all it held on the way.
func TestSuite(t *testing.T) {
	for _, c := range suiteCases(t) {
		t.Run(c.name, func(t *testing.T) {
			switch {
			case slices.Contains(likeOthers, c.name):
				testlane.OnlyAll(t, "other cases have its policy, its quantizer, its groups and its dtype")
			case slices.Contains(slowToCompile, c.name):
				testlane.OnlyAll(t, "its graphs take half a minute to compile; TestFeedback looks at what it codes")
			case !c.quick:
				testlane.Slow(t, "one case of every form is enough for a quick look")
			}
			t.Parallel()
			c.check(t, nil)
		})
	}
}

// check runs a kind of cache through the suite, on a backend; nil: XLA.
func (c suiteCase) check(t *testing.T, on compute.Backend) {
	var r *recording
	t.Run("attention equals the oracle's", func(t *testing.T) { r = c.record(t, on) })
	if r == nil || len(r.moments) < 99 {
		t.Fatal("nothing was recorded")
	}
	behaviours := []behaviour{
		{"every token is held once", checkHeldOnce},
		{"exact tokens are bit-identical", checkExact},
		{"codes of old tokens never change", checkCodesStay},
		{"the bits counted are the bits used", checkBitsUsed},
		{"memory predicted is memory measured", checkMemory},
		{"saved and loaded it goes on bit by bit", checkFile},
	}
	if r.config.Quantized() {
		behaviours = append(behaviours, behaviour{"the policy says which tokens are coded", checkPolicy},
			behaviour{"all forms of attention agree", checkPaths},
			behaviour{"coded tokens are what an ideal cache gives", checkCodedValues})
	}
	if c.deep {
		for _, b := range deepBehaviours {
			behaviours = append(behaviours, behaviour{b.name, func(t *testing.T, r *recording) {
				testlane.Slow(t, "compiles graphs of its own")
				b.check(t, r)
			}})
		}
	}
	if r.config.Backend == Blocks {
		behaviours = append(behaviours, behaviour{"the newest tokens and the sinks are exact", checkNewestExact})
	}
	for _, b := range behaviours {
		t.Run(b.name, func(t *testing.T) { b.check(t, r) })
	}
}

type behaviour struct {
	name  string
	check func(t *testing.T, r *recording)
}

// deepBehaviours run on the deep cases: what they need compiled takes most of the suite's time.
var deepBehaviours = []behaviour{
	{"a row in a padded batch is what it is alone", checkRowsAlone},
	{"a permuted batch gives permuted results", checkPermuted},
	{"one call, chunks and single tokens leave the same cache", checkChunks},
	{"a While does what separate calls do", checkWhile},
	{"crop forgets and goes on", checkCrop},
	{"crop again and again", checkCropAgain},
	{"reorder", checkReorder},
	{"repeat of a prefilled prompt over a batch", checkRepeat},
	{"reset", checkReset},
	{"grow keeps everything", checkGrow},
}

// each calls f for every layer and row of every moment.
func (r *recording) each(f func(m moment, layer, row, tokens int, held map[int]*heldToken)) {
	for _, m := range r.moments {
		for layer := range m.held {
			for row, held := range m.held[layer] {
				f(m, layer, row, m.slots-r.in.start[row], held)
			}
		}
	}
}

// reading the state fails where a token is held twice
func checkHeldOnce(t *testing.T, r *recording) {
	r.each(func(m moment, layer, row, tokens int, held map[int]*heldToken) {
		if len(held) != tokens {
			t.Errorf("slot %d, layer %d, row %d: %d tokens held, wanted %d", m.slots, layer, row, len(held), tokens)
		}
		for i := range tokens {
			if held[i] == nil {
				t.Errorf("slot %d, layer %d, row %d: token %d of %d is lost", m.slots, layer, row, i, tokens)
			}
		}
	})
}

func checkExact(t *testing.T, r *recording) {
	r.each(func(m moment, layer, row, _ int, held map[int]*heldToken) {
		for i, tok := range held {
			if tok.place == inCodes {
				continue
			}
			for head := range tok.keys {
				for d := range tok.keys[head] {
					k, v := float64(r.in.rows[row].keys[layer][i][head][d]), float64(r.in.rows[row].values[layer][i][head][d])
					if tok.keys[head][d] != k || tok.values[head][d] != v {
						t.Fatalf("slot %d, layer %d, row %d, exact token %d, head %d, channel %d: %v and %v, wanted %v and %v",
							m.slots, layer, row, i, head, d, tok.keys[head][d], tok.values[head][d], k, v)
					}
				}
			}
		}
	})
}

// A block is quantized once: what is stored of a coded token is the same at every later moment.
func checkCodesStay(t *testing.T, r *recording) {
	first := map[[3]int]string{}
	r.each(func(m moment, layer, row, _ int, held map[int]*heldToken) {
		for i, tok := range held {
			at := [3]int{layer, row, i}
			switch old, coded := first[at]; {
			case !coded && tok.place == inCodes:
				first[at] = tok.raw
			case coded && (tok.place != inCodes || tok.raw != old):
				t.Fatalf("slot %d, layer %d, row %d: the codes of token %d changed", m.slots, layer, row, i)
			}
		}
	})
	if r.config.Quantized() && len(first) < 3*32 {
		t.Errorf("%d tokens were ever coded, too few to show anything", len(first))
	}
}

// line is an ideal cache for this plan that codes with quantize.
func (r *recording) line(coder oracle.Coder) *oracle.Line {
	c := r.plan.Config()
	return oracle.NewLine(oracle.Policy{Whole: c.Backend != Blocks, Residual: c.ResidualLength, Block: r.plan.Inside().Block, Sinks: c.Sinks}, coder)
}

// seen replays one head of one row through an ideal cache: what it shows at each moment, after the
// flush with which the next step begins.
func (r *recording) seen(line *oracle.Line, tokens [][]float32, row int, f func(m moment, seen [][]float32, coded int)) {
	for i, m := range r.moments {
		n := m.slots - r.in.start[row]
		if i == 0 {
			line.Prompt(tokens[:n])
			// A prompt is coded at once by every policy.
			f(m, line.Seen(), line.Coded())
			continue
		}
		// This cache flushes at the start of the next step: until then the newest token has not
		// made the window give anything up.
		seen := append(append([][]float32{}, line.Seen()...), tokens[n-1])
		f(m, seen, line.Coded())
		line.Step(tokens[n-1])
	}
}

func checkPolicy(t *testing.T, r *recording) {
	for layer := range r.plan.Shape().Layers {
		for row := range r.in.rows {
			tokens := headOf(r.in.rows[row].keys[layer], 0)
			same := oracle.Coder{Group: 1, Quantize: func(x []float32) []float32 { return x }}
			r.seen(r.line(same), tokens, row, func(m moment, seen [][]float32, coded int) {
				sinks := min(r.plan.Inside().Sinks, len(seen))
				for i, tok := range m.held[layer][row] {
					want := inWindow
					switch {
					case i < sinks:
						want = inSinks
					case i < sinks+coded:
						want = inCodes
					}
					if tok.place != want {
						t.Fatalf("slot %d, layer %d, row %d: token %d of %d is held in %c, the policy wants %c", m.slots, layer, row, i, len(seen), tok.place, want)
					}
				}
			})
		}
	}
}

// headOf is one head of tokens [token][head][D].
func headOf(tokens [][][]float32, head int) (out [][]float32) {
	for _, tok := range tokens {
		out = append(out, tok[head])
	}
	return out
}

func checkNewestExact(t *testing.T, r *recording) {
	r.each(func(m moment, layer, row, tokens int, held map[int]*heldToken) {
		for i, tok := range held {
			if (i >= tokens-r.config.ResidualLength || i < r.config.Sinks) && tok.place == inCodes {
				t.Fatalf("slot %d, layer %d, row %d: token %d of %d is coded", m.slots, layer, row, i, tokens)
			}
		}
	})
}

func checkMemory(t *testing.T, r *recording) {
	measured, err := Measure(r.plan, r.state)
	if err != nil {
		t.Fatal(err)
	}
	if predicted := r.plan.Memory(); measured != predicted {
		t.Errorf("measured %+v, predicted %+v", measured, predicted)
	}
	var bytes int64
	for _, x := range r.state {
		bytes += int64(x.Shape().ByteSize())
	}
	if bytes != r.plan.Memory().Total() {
		t.Errorf("%d bytes live, %d predicted", bytes, r.plan.Memory().Total())
	}
}
