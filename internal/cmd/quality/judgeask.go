package main

import (
	"context"
	"strings"

	"github.com/kvqbook/kvqbook/internal/judge/task"
	"github.com/kvqbook/kvqbook/internal/passkey"
	"github.com/kvqbook/kvqbook/llama"
)

// askedScore is the questions of one kind, at one length in tokens.
type askedScore struct {
	Kind   task.Kind `json:"kind"`
	Length int       `json:"length"`
	// Right has a character for each question, 1 where the whole answer is right, so that caches
	// can be compared question by question.
	Right string `json:"right"`
}

func (a askedScore) right() int { return strings.Count(a.Right, "1") }

// ask asks all questions of a length.
func (b *bench) ask(ctx context.Context, g *llama.Generator, length int, r *result) error {
	asked := b.judge.trials[length]
	for _, a := range asked.kinds {
		found, compile, err := passkey.Measure(ctx, g, a.trials, asked.batch)
		if err != nil {
			return err
		}
		r.Compile += compile.Seconds()
		s := askedScore{Kind: a.kind, Length: length}
		for i, t := range a.trials {
			if found[i] == t.Last {
				s.Right += "1"
			} else {
				s.Right += "0"
			}
		}
		r.Judged.Asked = append(r.Judged.Asked, s)
	}
	return nil
}
