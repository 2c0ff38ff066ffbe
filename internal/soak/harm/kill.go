package harm

import (
	"context"

	"github.com/kvqbook/kvqbook/internal/soak"
)

var kill = soak.Part{
	Name:    "kill",
	Promise: "A process that is killed at any moment (kill -9) leaves files that are whole or not there; the next run goes on and ends well.",
	Test:    "`TestQuick/kill` in `internal/soak/harm`, `TestSaveRemovesLeftovers` in `kvq`",
	Run:     runKill,
}

func runKill(ctx context.Context, s *soak.Sitting) error {
	random := s.Random()
	server, stop := startHub()
	defer stop()
	for _, stage := range []struct {
		name string
		want soak.Amount
		once func() error
	}{
		{"save", soak.Amount{Quick: 2, Full: 80}, func() error { return killSave(ctx, s, random) }},
		{"download", soak.Amount{Quick: 1, Full: 60}, func() error { return killDownload(ctx, s, random, server) }},
		{"compile cache", soak.Amount{Full: 60}, func() error { return killCompile(ctx, s, random) }},
		{"notebook", soak.Amount{Full: 70}, func() error { return killNotebook(ctx, s, random) }},
	} {
		for s.More(stage.name, stage.want) {
			if err := stage.once(); err != nil {
				return err
			}
		}
	}
	return killSetups(ctx, s, random)
}
