package models

import (
	"context"
	"fmt"
	"math"

	"github.com/gomlx/compute/dtypes"

	"github.com/kvqbook/kvqbook/internal/soak"
	"github.com/kvqbook/kvqbook/kvq"
)

var extremes = soak.Part{
	Name: "extremes",
	Promise: "NaN, infinities, 3e38, denormal numbers and constants stay in their row: what is coded decodes to finite numbers near its input, " +
		"answers up to 1e18 are finite, and no other row notices.",
	Test: "`TestHostileInput`, `TestNotANumberIsSeenAndThenContained` in `kvq`, `TestWideGroups` in `kvq/internal/numbers`; `TestQuick/extremes` in `internal/soak/models`",
	Run:  runExtremes,
}

// extreme is what one row's keys and values become.
type extreme struct {
	name   string
	change func(x float32, token, channel int) float32
	// near: input is finite, and so is what comes back, near to it. answered: answers are finite
	// too.
	near, answered bool
}

var (
	infinity = float32(math.Inf(1))
	notANum  = float32(math.NaN())
)

func extremeInputs() []extreme {
	constant := func(c float32) func(float32, int, int) float32 { return func(float32, int, int) float32 { return c } }
	times := func(c float32) func(float32, int, int) float32 {
		return func(x float32, _, _ int) float32 { return x * c }
	}
	within := func(c float32) func(float32, int, int) float32 { // x is hardly ever beyond 8
		return func(x float32, _, _ int) float32 { return min(max(x/4, -1), 1) * c }
	}
	some := func(c float32) func(float32, int, int) float32 {
		return func(x float32, token, channel int) float32 {
			if token%11 == 3 && channel%13 == 5 {
				return c
			}
			return x
		}
	}
	ends := func(c float32) func(float32, int, int) float32 {
		return func(_ float32, token, channel int) float32 {
			if (token+channel)%2 == 0 {
				return -c
			}
			return c
		}
	}
	return []extreme{
		{"zeros", constant(0), true, true},
		{"negative zeros", constant(float32(math.Copysign(0, -1))), true, true},
		{"a constant", constant(-3.25), true, true},
		{"a constant of 65504", constant(65504), true, true},
		{"a constant of 3e38", constant(3e38), true, false},
		{"a constant denormal", constant(1e-40), true, true},
		{"constant channels", func(_ float32, _, channel int) float32 { return float32(channel) }, true, true},
		{"constant tokens", func(_ float32, token, _ int) float32 { return float32(token % 7) }, true, true},
		{"denormals", times(1e-40), true, true},
		{"the smallest denormals", within(math.SmallestNonzeroFloat32 * 7), true, true},
		{"around the smallest normal", times(1.2e-38), true, true},
		{"denormals of float16", times(3e-6), true, true},
		{"beyond float16", times(1e7), true, true},
		{"scales beyond float16", times(3e5), true, true},
		{"1e18", times(1e18), true, true},
		{"3e38", within(3e38), true, false},
		{"3e38 and -3e38", ends(3e38), true, false},
		{"the largest float32", ends(math.MaxFloat32), true, false},
		{"1.6e38", within(1.6e38), true, false},
		{"some of 3e38", some(3e38), true, false},
		{"some of 1e5", some(1e5), true, true},
		{"some denormals", some(1e-42), true, true},
		{"some NaN", some(notANum), false, false},
		{"some infinities", some(infinity), false, false},
		{"infinities of both signs", func(x float32, token, channel int) float32 {
			return some(infinity*float32(1-2*(token&1)))(x, token, channel)
		}, false, false},
		{"an infinity beside 2e38", func(x float32, token, channel int) float32 {
			return some(infinity)(within(2e38)(x, 0, 0), token, channel)
		}, false, false},
		{"all NaN", constant(notANum), false, false},
		{"all infinite", constant(infinity), false, false},
		{"all negative infinite", constant(-infinity), false, false},
	}
}

// Lengths of an extreme's text: the prompt is longer than every window, so that a part of it is
// coded at once, and a step flushes the window again.
const (
	extremePrompt = 120
	extremeTokens = 144
)

func runExtremes(ctx context.Context, s *soak.Sitting) error {
	list, types := caches(), []dtypes.DType{dtypes.Float32, dtypes.Float16, dtypes.BFloat16}
	if s.Quick {
		list, types = some("quanto-2"), types[:1]
	}
	for _, c := range list {
		for _, dtype := range types {
			name := fmt.Sprintf("%s in %s", c.name, dtype)
			if ctx.Err() != nil || s.Kept(name) != "" {
				continue
			}
			if err := extremesOf(ctx, s, c, dtype, name); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			if ctx.Err() == nil {
				s.Keep(name, "done")
			}
		}
	}
	if !s.Quick {
		s.Note("%d caches in float32, float16 and bfloat16, %d kinds of numbers each", len(list), len(extremeInputs()))
	}
	return nil
}

// extremesOf tries all extremes with one cache. Rows 0 and 2 are calm and row 1 is not.
func extremesOf(ctx context.Context, s *soak.Sitting, c named, dtype dtypes.DType, name string) error {
	const heads, kvHeads, dim, row = 4, 2, 64, 1
	p, err := newPlayer(c.config, kvq.Shape{Layers: 1, Batch: 3, KVHeads: kvHeads, HeadDim: dim, Capacity: 160, DType: dtype})
	if err != nil {
		return err
	}
	defer p.end()
	s.Doing("%s: compiles", name)
	fresh := func() *texts { return newTexts(3, 3, heads, kvHeads, dim, extremeTokens) }
	calm := p.with(fresh(), 0, 0, 7)
	calmAnswers, err := play(calm, extremePrompt, extremeTokens)
	if err != nil {
		return err
	}
	calmHeld, err := calm.held()
	if err != nil {
		return err
	}
	coded := 0
	for _, one := range calmHeld[row] {
		if one.keyCodes != nil {
			coded++
		}
	}
	if c.config.Quantized() && coded < 32 {
		return fmt.Errorf("%d tokens are coded, too few to show anything", coded)
	}
	for _, e := range extremeInputs() {
		if ctx.Err() != nil {
			return nil
		}
		s.Doing("%s: %s", name, e.name)
		text := fresh()
		for _, x := range [][]float32{text.rows[row].keys, text.rows[row].values} {
			for i := range x {
				x[i] = e.change(x[i], i/dim%extremeTokens, i%dim)
			}
		}
		h := p.with(text, 0, 0, 7)
		answers, err := play(h, extremePrompt, extremeTokens)
		if err != nil {
			return err
		}
		held, err := h.held()
		if err != nil {
			return err
		}
		fail := func(format string, args ...any) {
			s.Fail(nil, "%s, %s: %s", name, e.name, fmt.Sprintf(format, args...))
		}
		for _, beside := range []int{0, 2} {
			if what := sameTokens(calmHeld[beside], held[beside]); what != "" {
				fail("the row beside it holds %s", what)
			}
			for i := range answers {
				if n := differing(calmAnswers[i][beside], answers[i][beside]); n > 0 {
					fail("%d answers of the row beside it differ in call %d", n, i)
					break
				}
			}
		}
		for i := range answers {
			if e.answered && !finite(answers[i][row]) {
				fail("an answer is not finite in call %d", i)
				break
			}
		}
		if what := wrongHeld(text, row, held[row], e.near, c.config.RotateKeys || c.config.RotateValues); what != "" {
			fail("%s", what)
		}
		s.Try("extremes")
	}
	return nil
}

// play takes a prompt in and then tokens one by one. It returns the answers of each call by row.
func play(p *player, prompt, tokens int) (answers [][][]float32, err error) {
	for p.slots < tokens {
		n := 1
		if p.slots == 0 {
			n = prompt
		}
		if err := p.add(n); err != nil {
			return nil, err
		}
		var rows [][]float32
		for row := range p.text.rows {
			x := p.answers(row)
			// queries that are padding have no right answer
			if p.slots == prompt && p.start[row] > 0 {
				x = unpadded(x, p.text.heads, prompt, p.text.dim, p.start[row])
			}
			rows = append(rows, append([]float32(nil), x...))
		}
		answers = append(answers, rows)
	}
	return answers, nil
}

// unpadded is x [H, t, D] without the first start of t.
func unpadded(x []float32, heads, t, dim, start int) (out []float32) {
	for head := range heads {
		out = append(out, x[(head*t+start)*dim:(head+1)*t*dim]...)
	}
	return out
}

// wrongHeld says what is wrong with what a row holds, "" for nothing. Codes stand for finite
// numbers whatever came in; near to the input where that is finite.
//
// Limits of ranges may move a number as far as the largest one is, up or down. Where a scale or a
// zero point saturates, rotation gathers what that costs of all channels: sqrt(D) times as much.
func wrongHeld(text *texts, row int, held map[int]token, near, rotated bool) string {
	most := 2.0
	if rotated {
		most *= math.Sqrt(float64(text.dim))
	}
	for i, one := range held {
		for side, got := range [][]float32{one.keys, one.values} {
			from := [][]float32{text.rows[row].keys, text.rows[row].values}[side]
			if one.keyCodes != nil && !finite(got) {
				return fmt.Sprintf("token %d is coded and not finite", i)
			}
			if !near {
				continue
			}
			largest := 0.0
			for _, x := range from {
				largest = max(largest, math.Abs(float64(x)))
			}
			for j, v := range got {
				want := float64(from[text.at(j/text.dim, i, j%text.dim)])
				if e := math.Abs(float64(v) - want); !(e <= most*largest*(1+1e-6)+0x1p-126) {
					return fmt.Sprintf("token %d, channel %d: %g came back as %g", i, j%text.dim, want, v)
				}
			}
		}
	}
	return ""
}
