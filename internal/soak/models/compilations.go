package models

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.

	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/soak"
	"github.com/kvqbook/kvqbook/llama"
)

// generatorsMade and controlMade are children: a process that makes generators, compiles, generates
// and ends them; and one that does the same with graphs that have nothing of kvq or llama.
const (
	generatorsMade = "memory-generators"
	controlMade    = "memory-control"
)

func init() {
	soak.RegisterChild(generatorsMade, func(args []string) error { return compiling(args, compileGenerator) })
	soak.RegisterChild(controlMade, func(args []string) error { return compiling(args, compileControl) })
}

// beyondControl is how much more of a generator may stay than of the control's graphs, in bytes:
// an allocator's unevenness. Both are fitted over the same number of rounds.
const beyondControl = mib

// compilations looks at generators that come and go. XLA, GoMLX and the allocator may keep a little
// of every graph that was ever compiled; a control says how much that is without kvq.
func compilations(ctx context.Context, s *soak.Sitting) error {
	const stage = "generators made and ended"
	want := soak.Amount{Quick: 0, Full: 60}
	if !s.More(stage, want) {
		return nil
	}
	var slopes [2]float64
	for i, child := range []string{generatorsMade, controlMade} {
		s.Doing("%s in a process of its own", child)
		cmd := s.Child(ctx, child, fmt.Sprint(want.Full))
		// glibc gives each of XLA's threads an arena, and what is freed in one stays with the
		// process. With a single arena only what is held stays.
		cmd.Env = append(cmd.Env, "MALLOC_ARENA_MAX=1")
		out, err := cmd.Output()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", child, err)
		}
		var list []sample
		if err := json.Unmarshal(out, &list); err != nil {
			return fmt.Errorf("%s: %w", child, err)
		}
		slopes[i] = growth(list, func(s sample) int64 { return s.Resident })
		s.Note("%s: %+.2f MiB for each of %d rounds", child, slopes[i]/mib, want.Full)
	}
	if slopes[0] > max(0, slopes[1])+beyondControl {
		s.Fail(nil, "each generator that was ended leaves %.2f MiB, graphs without kvq leave %.2f MiB", slopes[0]/mib, slopes[1]/mib)
	}
	s.Tries(stage, want.Full)
	return nil
}

// compiling runs rounds of one function and prints the samples.
func compiling(args []string, round func(i int) error) error {
	var n int
	if _, err := fmt.Sscan(args[0], &n); err != nil {
		return err
	}
	b, err := backend()
	if err != nil {
		return err
	}
	var list []sample
	for i := range n {
		if err := round(i); err != nil {
			return err
		}
		list = append(list, measure(i, b))
	}
	data, err := json.Marshal(list)
	if err == nil {
		fmt.Println(string(data))
	}
	return err
}

var compileModel *llama.Model

func compileGenerator(i int) error {
	if compileModel == nil {
		var err error
		if compileModel, err = tiny(512); err != nil {
			return err
		}
	}
	list := some("full", "tutorial", "balanced")
	g, err := llama.NewGenerator(compileModel, list[i%len(list)].config)
	if err != nil {
		return err
	}
	defer g.Finalize()
	_, err = g.Generate(context.Background(), prompts(compileModel.Config().VocabSize, uint64(i), 5, 16), greedy(40))
	return err
}

// compileControl compiles two graphs of a hundred operations with a loop, as a generator's are,
// runs and ends them.
func compileControl(i int) error {
	b, err := backend()
	if err != nil {
		return err
	}
	for graph := range 2 {
		exec, err := NewExec(b, func(x *Node) *Node {
			for layer := range 12 + graph {
				y := MatMul(x, Transpose(x, 0, 1))
				x = Add(x, MatMul(gx.MulScalar(Tanh(y), 1/float64(1+layer+i%7)), x))
				x = Div(x, gx.AddScalar(gx.ReduceMaxAndKeep(Abs(x), 1), 1))
			}
			state := []*Node{gx.Scalar(x.Graph(), dtypes.Int32, 0), x}
			state = gx.Loop(state, func(s []*Node) *Node { return gx.LessThanScalar(s[0], 5) },
				func(s []*Node) []*Node { return []*Node{gx.AddScalar(s[0], 1), Tanh(s[1])} })
			return state[1]
		})
		if err != nil {
			return err
		}
		out, err := exec.Exec(make2D(16, 32))
		if err != nil {
			return err
		}
		for _, x := range out {
			if err := x.FinalizeAll(); err != nil {
				return err
			}
		}
		exec.Finalize()
	}
	return nil
}

func make2D(rows, columns int) [][]float32 {
	x := make([][]float32, rows)
	for i := range x {
		x[i] = make([]float32, columns)
		for j := range x[i] {
			x[i][j] = float32(i-j) / 16
		}
	}
	return x
}
