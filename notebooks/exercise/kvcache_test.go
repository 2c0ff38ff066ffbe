package exercise

import (
	"math"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"

	"github.com/kvqbook/kvqbook/internal/testbackend"
	"github.com/kvqbook/kvqbook/internal/testlane"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/notebooks/nb"
	"github.com/kvqbook/kvqbook/notebooks/solutions"
)

// tried is a check's verdict on an answer, and what it has to say: "" is right.
type tried struct {
	name    string
	verdict Verdict
	want    string
}

// tell checks verdicts.
func tell(t *testing.T, answers ...tried) {
	t.Helper()
	for _, a := range answers {
		switch {
		case a.want == "" && (!a.verdict.Right || !strings.HasPrefix(a.verdict.Text, "right: ")):
			t.Errorf("%s: %q, want it to be right", a.name, a.verdict)
		case a.want != "" && (a.verdict.Right || !strings.HasPrefix(a.verdict.Text, "not yet: ") || !strings.Contains(a.verdict.Text, a.want)):
			t.Errorf("%s: %q, want %q in it", a.name, a.verdict, a.want)
		}
		if strings.Contains(a.verdict.Text, "\n") {
			t.Errorf("%s: %q is more than a line", a.name, a.verdict)
		}
	}
}

func TestBitsPerValue(t *testing.T) {
	tell(t,
		tried{"solution", BitsPerValue(solutions.BitsPerValue), ""},
		tried{"another way", BitsPerValue(func(b, g, s int) float64 { return float64(b*g+2*s) / float64(g) }), ""},
		tried{"one scale only", BitsPerValue(func(b, g, s int) float64 { return float64(b) + float64(s)/float64(g) }),
			"with 4 bits, groups of 32 and scales of 16 bits the cost of a number in bits is 4.5, wanted 5 (off by 0.5). 0 of 5"},
		tried{"whole numbers", BitsPerValue(func(b, g, s int) float64 { return float64(b + 2*s/g) }), "with 8 bits, groups of 64 and scales of 16 bits"},
		tried{"one more", BitsPerValue(func(b, _, s int) float64 { return float64(b + s/16) }), "8 bits, groups of 64"},
		tried{"stub", BitsPerValue(func(_, _, _ int) float64 { return 0 }), "is 0, wanted 5"},
		tried{"not a number", BitsPerValue(func(_, _, _ int) float64 { return math.NaN() }), "not a number"},
		tried{"panics", BitsPerValue(func(b, g, _ int) float64 { return float64(b / (g - 32)) }), "panicked: runtime error"},
	)
}

// The literal answers are the library's own.
func TestBitsPerValueIsTheLibrarys(t *testing.T) {
	for scaleBits, dtype := range map[int]dtypes.DType{16: dtypes.Float16, 32: dtypes.Float32} {
		v := BitsPerValue(func(bits, group, s int) float64 {
			if s != scaleBits {
				return solutions.BitsPerValue(bits, group, s)
			}
			plan, err := kvq.New(kvq.Config{Backend: kvq.Quanto, NBits: bits, QGroupSize: group, ResidualLength: 64},
				kvq.Shape{Layers: 1, Batch: 1, KVHeads: 1, HeadDim: 64, Capacity: 64, DType: dtype})
			if err != nil {
				t.Fatal(err)
			}
			return plan.BitsPerValue()
		})
		tell(t, tried{"the library", v, ""})
	}
}

func TestThereAndBack(t *testing.T) {
	edit := func(change func(x float64) float64) func([]float64, int) []float64 {
		return func(g []float64, bits int) []float64 {
			out := solutions.ThereAndBack(g, bits)
			for i := range out {
				out[i] = change(out[i])
			}
			return out
		}
	}
	tell(t,
		tried{"solution", ThereAndBack(solutions.ThereAndBack), ""},
		tried{"shifted a little", ThereAndBack(edit(func(x float64) float64 { return x + 0.01 })), "with 2 bits"},
		tried{"a step too many", ThereAndBack(func(g []float64, bits int) []float64 { return solutions.ThereAndBack(g, bits+1) }), "which is no code"},
		tried{"a bit too few", ThereAndBack(func(g []float64, bits int) []float64 { return solutions.ThereAndBack(g, bits-1) }), "half a step is"},
		tried{"unchanged", ThereAndBack(func(g []float64, _ int) []float64 { return g }), "which is no code"},
		tried{"stub", ThereAndBack(func(g []float64, _ int) []float64 { return make([]float64, len(g)) }), "off by"},
		tried{"nothing", ThereAndBack(func([]float64, int) []float64 { return nil }), "0 numbers came back, wanted 8"},
		tried{"not numbers", ThereAndBack(edit(func(float64) float64 { return math.NaN() })), "off by NaN"},
		tried{"panics", ThereAndBack(func(g []float64, _ int) []float64 { return g[:1<<20] }), "panicked"},
	)
}

func TestTokensInCodes(t *testing.T) {
	tell(t,
		tried{"solution", TokensInCodes(solutions.TokensInCodes), ""},
		tried{"flushed as soon as it is full", TokensInCodes(func(p, f, r int) int { return p + f/r*r }), "with a prompt of 9, 16 new tokens and a residual of 8"},
		tried{"without the prompt", TokensInCodes(func(_, f, r int) int { return (f - 1) / r * r }), "is 0, wanted 9"},
		tried{"stub", TokensInCodes(func(_, _, _ int) int { return 0 }), "0 of 5"},
	)
}

// The literal answers are what a real cache holds.
func TestTokensInCodesIsTheCaches(t *testing.T) {
	testlane.OnlyAll(t, "runs five caches; TestLifeOfTheTutorialsCache runs one")
	for _, c := range tokensInCodes {
		config := kvq.Config{Backend: kvq.Quanto, NBits: 4, QGroupSize: 32, ResidualLength: c.residual}
		if got := nb.Life(testbackend.XLA(t), config, c.prompt, c.fed)[c.fed].Coded; got != c.want {
			t.Errorf("%+v: the cache has %d in codes", c, got)
		}
	}
}

func TestTestsItsCache(t *testing.T) {
	testlane.OnlyAll(t, "runs three caches")
	nearly := kvq.Tutorial()
	nearly.ResidualLength = 19
	backend := testbackend.XLA(t)
	tell(t,
		tried{"solution", TestsItsCache(backend, solutions.Mine(), 9, 20), ""},
		tried{"one too long", TestsItsCache(backend, nearly, 9, 20), "all 19 new ones wait in the window"},
		tried{"stub", TestsItsCache(backend, kvq.Tutorial(), 9, 20), "no generated one"},
		tried{"full precision", TestsItsCache(backend, kvq.Config{}, 9, 20), "nothing is in codes"},
	)
}
