package models

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"

	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/internal/asset"
	"github.com/kvqbook/kvqbook/internal/engine"
	"github.com/kvqbook/kvqbook/internal/soak"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama"
)

var repeats = soak.Part{
	Name: "repeats",
	Promise: "One program and shape gives the same tokens and the same codes bit by bit, from process to process, on one processor and on two; " +
		"alone and in a batch the cache codes the same keys and values alike, and the model picks the same tokens but where its two best logits lie within 1e-4, or rounding had moved a code before.",
	Test: "`TestSuite` in `kvq`, `TestRowsDoNotTouchOneAnother` in `llama`; `TestQuick/repeats` in `internal/soak/models`",
	Run:  runRepeats,
}

func runRepeats(ctx context.Context, s *soak.Sitting) error {
	for _, step := range []func(context.Context, *soak.Sitting) error{processes, cacheInBatch, modelInBatch} {
		if err := step(ctx, s); err != nil || ctx.Err() != nil {
			return err
		}
	}
	return nil
}

// repeatChild prints what one process gives: see repeat.
const repeatChild = "repeat"

func init() { soak.RegisterChild(repeatChild, repeat) }

// repeated is what one process gave with one cache.
type repeated struct{ Tokens, State string } // digests

// The text of a repetition: rows that are padded, a prompt longer than every window, and tokens
// enough to flush it again.
var repeatRows = []int{120, 33, 101}

const repeatTokens = 40

// repeat generates with each cache that the arguments name, on the model that the first one names.
func repeat(args []string) error {
	open := small
	if args[0] == "tiny" {
		open = func() (*llama.Model, error) { return tiny(512) }
	}
	m, err := open()
	if err != nil {
		return err
	}
	out := map[string]repeated{}
	for _, c := range some(args[1:]...) {
		g, err := llama.NewGenerator(m, c.config)
		if err != nil {
			return err
		}
		var state string
		result, err := engine.Generate(context.Background(), g, prompts(m.Config().VocabSize, 1, repeatRows...), greedy(repeatTokens),
			func(_ *kvq.Plan, arrays []*tensors.Tensor) (err error) {
				state, err = digestOf(arrays)
				return err
			})
		if err != nil {
			return err
		}
		g.Finalize()
		tokens := sha256.Sum256(fmt.Append(nil, result.(*llama.Result).Tokens))
		out[c.name] = repeated{hex.EncodeToString(tokens[:8]), state}
	}
	data, err := json.Marshal(out)
	if err == nil {
		fmt.Println(string(data))
	}
	return err
}

// digestOf is one digest of all arrays.
func digestOf(arrays []*tensors.Tensor) (string, error) {
	h := sha256.New()
	for _, x := range arrays {
		if err := x.ConstBytes(func(data []byte) { h.Write(data) }); err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:8]), nil
}

// processes compares what processes give: all of them compile for themselves.
func processes(ctx context.Context, s *soak.Sitting) error {
	_, err := exec.LookPath("taskset")
	if err != nil {
		s.Untried("one processor against two: there is no taskset")
	}
	for _, model := range []struct {
		name   string
		caches []named
		runs   soak.Amount
	}{
		{"tiny", caches(), soak.Amount{Quick: 1, Full: 2}},
		{"SmolLM2", some("full", "tutorial", "balanced"), soak.Amount{Full: 2}},
	} {
		list := []string{model.name}
		for _, c := range model.caches {
			if !s.Quick || c.name == "quanto-2" {
				list = append(list, c.name)
			}
		}
		places := map[string][]string{"all processors": nil, "one processor": {"taskset", "-c", "0"}}
		if err != nil || s.Quick {
			delete(places, "one processor")
		}
		first := map[string]map[string]repeated{}
		for place, before := range places {
			stage := fmt.Sprintf("processes of %s on %s", model.name, place)
			kept := stage + " gave"
			for s.More(stage, model.runs) {
				got, err := process(ctx, s, before, list)
				if ctx.Err() != nil {
					return nil
				}
				if err != nil {
					return err
				}
				if have := s.Kept(kept); have == "" {
					data, err := json.Marshal(got)
					if err != nil {
						return err
					}
					s.Keep(kept, string(data))
				} else {
					var want map[string]repeated
					if err := json.Unmarshal([]byte(have), &want); err != nil {
						return err
					}
					for name, one := range got {
						if one != want[name] {
							s.Fail(nil, "%s: %s gave %+v, before %+v", stage, name, one, want[name])
						}
					}
				}
				s.Try(stage)
			}
			if have := s.Kept(kept); have != "" {
				var one map[string]repeated
				if err := json.Unmarshal([]byte(have), &one); err != nil {
					return err
				}
				first[place] = one
			}
		}
		if len(first) == 2 && ctx.Err() == nil {
			tokens, states := 0, 0
			for name, one := range first["one processor"] {
				other := first["all processors"][name]
				if one.Tokens == other.Tokens {
					tokens++
				} else {
					s.Fail(nil, "%s, %s: other tokens on one processor", model.name, name)
				}
				if one.State == other.State {
					states++
				}
			}
			s.Note("%s on one processor and on all: tokens equal for %d of %d caches, all that the cache holds bit-equal for %d",
				model.name, tokens, len(first["one processor"]), states)
		}
	}
	return nil
}

// process runs a repetition in a process of its own, after a command that says where.
func process(ctx context.Context, s *soak.Sitting, before, args []string) (map[string]repeated, error) {
	cmd := s.Child(ctx, repeatChild, args...)
	if before != nil {
		path, err := exec.LookPath(before[0])
		if err != nil {
			return nil, err
		}
		cmd.Args = append(append([]string{}, before...), append([]string{cmd.Path}, args...)...)
		cmd.Path = path
	}
	cmd.Env = append(cmd.Env, asset.EnvCompiled+"="+asset.Off)
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, last([]byte(errs.String()), 300))
	}
	var got map[string]repeated
	err = json.Unmarshal(out, &got)
	return got, err
}
