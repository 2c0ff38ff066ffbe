package kvq_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/kvqbook/kvqbook/internal/testlane"
	. "github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/kvq/internal/attend"
)

// Head dimensions of real models, and 16: those that are no power of two rotate in smaller blocks
// and have no groups of 64.
func TestHeadDimensions(t *testing.T) {
	for _, dim := range []int{16, 64, 80, 96, 128, 256} {
		for _, c := range []suiteCase{
			{name: "quanto", config: Config{Backend: Quanto, NBits: 2, QGroupSize: 16, ResidualLength: 4}, dtype: dtypes.Float32, dim: dim},
			{name: "blocks", config: Config{Backend: Blocks, NBitsKey: 5, NBitsValue: 3, QGroupSizeKey: 32, QGroupSizeValue: 16, AxisKey: PerChannel,
				RotateKeys: true, RotateValues: true, ResidualLength: 3, Sinks: 1}, dtype: dtypes.Float32, dim: dim},
		} {
			if c.name == "quanto" && dim != 16 && dim != 80 {
				continue // its layout is the other's values'
			}
			t.Run(fmt.Sprintf("%s %d", c.name, dim), func(t *testing.T) {
				switch dim {
				case 64:
				case 16, 96, 128, 256:
					testlane.OnlyAll(t, "as 64 and 80")
				default:
					testlane.Slow(t, "one head dimension is enough for a quick look")
				}
				t.Parallel()
				s := c.short(t, 64)
				s.prompt(39)
				c.requireSteps(t, "prompt", s, 6, 1.5)
				if n := codedTokens(s.held()[0][0]); n < 32 {
					t.Errorf("%d tokens are coded, too few to show anything", n)
				}
			})
		}
	}
}

// short is a session of one row and two key/value heads.
func (c suiteCase) short(t *testing.T, capacity int) *session {
	t.Helper()
	shape := Shape{Layers: 1, Batch: 1, KVHeads: 2, HeadDim: c.dim, Capacity: capacity, DType: c.dtype, SlidingWindow: c.sliding}
	return newSession(t, newPlan(t, c.config, shape), makeInputs(7, shape, suiteHeads, capacity, 0))
}

func codedTokens(held map[int]*heldToken) (n int) {
	for _, tok := range held {
		if tok.place == inCodes {
			n++
		}
	}
	return n
}

// Prompts of every length around sinks, window and blocks, in a cache that is then filled to its
// last slot.
func TestLengthsAroundEveryBoundary(t *testing.T) {
	testlane.Slow(t, "compiles a graph for every length of a prompt")
	const capacity = 72
	for _, c := range []struct {
		suiteCase
		lengths []int // beside a boundary
		others  []int // for --all
	}{
		// 2 sinks, 3 exact, blocks of 32: the first block goes at 37, the second at 69.
		{suiteCase{name: "blocks", config: blocks(4, func(c *Config) { perChannelKeys(c); c.Sinks, c.ResidualLength = 2, 3 }), dtype: dtypes.Float32, dim: 32},
			[]int{1, 2, 3, 5, 6, 36, 37, 68, 69, 72}, []int{4, 31, 32, 33, 34, 38, 70, 71}},
		{suiteCase{name: "quanto", config: Config{Backend: Quanto, NBits: 4, QGroupSize: 32, ResidualLength: 4}, dtype: dtypes.Float32, dim: 32},
			[]int{1, 4, 5, 32, 33, 64, 65, 72}, []int{2, 3, 31, 63, 71}},
		// A group of 32 tokens is begun by the prompt and left as it is.
		{suiteCase{name: "quanto per channel", config: Config{Backend: Quanto, NBits: 4, QGroupSize: 32, ResidualLength: 32, AxisKey: PerChannel, AxisValue: PerChannel}, dtype: dtypes.Float32, dim: 32},
			[]int{1, 32, 33, 40, 72}, []int{31, 39, 41}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := c.short(t, capacity)
			for _, length := range slices.Sorted(slices.Values(slices.Concat(c.lengths, c.others))) {
				t.Run(fmt.Sprint(length), func(t *testing.T) {
					if slices.Contains(c.others, length) {
						testlane.OnlyAll(t, "a graph for each length; those beside a boundary are in every lane but the quick one")
					}
					s.t = t
					s.prompt(length)
					for layer, got := range s.out {
						if worst, at := worstAttention(s, length, got, s.uncached(layer, length)); worst > c.tolerance() {
							t.Errorf("prompt of %d: attention is off by %.2g at %s", length, worst, at)
						}
					}
					c.requireSteps(t, fmt.Sprintf("prompt of %d", length), s, capacity-length, 0.35)
					if n := len(s.held()[0][0]); n != capacity {
						t.Errorf("prompt of %d: %d tokens are held in a full cache of %d", length, n, capacity)
					}
				})
			}
		})
	}
}

// A sliding window hides tokens by their age, wherever they are: in codes, in the window, in the
// sinks, in a long prompt.
func TestSlidingWindow(t *testing.T) {
	testlane.Slow(t, "compiles a cache for each window")
	for _, sliding := range []int{1, 40} {
		c := suiteCase{config: blocks(8, func(c *Config) { perChannelKeys(c); c.Sinks = 2 }), dtype: dtypes.Float32, dim: 32, sliding: sliding}
		s := c.short(t, 96)
		s.prompt(50)
		for layer, got := range s.out {
			if worst, at := worstAttention(s, 50, got, s.uncached(layer, 50)); worst > c.tolerance() {
				t.Errorf("sliding window of %d, prompt: attention is off by %.2g at %s", sliding, worst, at)
			}
		}
		c.requireSteps(t, fmt.Sprintf("sliding window of %d", sliding), s, 40, 0.1)
	}
}

// A prompt longer than the scores that are alive at once goes in blocks of queries; the answers are
// the same.
func TestLongPrompt(t *testing.T) {
	const length = 2*attend.PromptBlock + 37
	shape := Shape{Layers: 1, Batch: 2, KVHeads: 1, HeadDim: 16, Capacity: length + 3, DType: dtypes.Float32, SlidingWindow: 300}
	c := suiteCase{config: Config{Backend: Blocks, NBits: 8, QGroupSizeKey: 64, QGroupSizeValue: 16, AxisKey: PerChannel, ResidualLength: 10}, dtype: dtypes.Float32}
	s := newSession(t, newPlan(t, c.config, shape), makeInputs(3, shape, 2, length+3, 0, 77))
	s.prompt(length)
	if worst, at := worstAttention(s, length, s.out[0], s.uncached(0, length)); worst > c.tolerance() {
		t.Errorf("attention is off by %.2g at %s", worst, at)
	}
	c.requireSteps(t, "long prompt", s, 2, 0.1)
}

// What is not finite in a row's padding must not matter, and neither must its size.
func TestPaddingHasNoVote(t *testing.T) {
	c := suiteCase{config: blocks(4, func(c *Config) { perChannelKeys(c); c.AxisValue, c.Sinks = PerChannel, 2 }), dtype: dtypes.Float32, dim: 32}
	shape := c.shape(2, 96)
	var runs []*session
	for _, padding := range []float32{0, 1e30} {
		s := newSession(t, newPlan(t, c.config, shape), makeInputs(9, shape, suiteHeads, 96, 0, 40))
		s.in.padding = padding
		if len(runs) > 0 {
			s.graphs = runs[0].graphs
		}
		s.prompt(45)
		for s.slots < 90 {
			s.step(1)
		}
		runs = append(runs, s)
	}
	requireSameCache(t, "padding of 1e30 against padding of 0", runs[1], runs[0])
	for layer := range runs[0].out {
		if worst, at := worstAttention(runs[0], 1, runs[1].out[layer], runs[0].out[layer]); worst > 0 {
			t.Errorf("answers differ by %.2g at %s", worst, at)
		}
	}
}
