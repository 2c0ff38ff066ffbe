package benchcmd

import (
	"context"
	"time"

	"github.com/kvqbook/kvqbook/internal/bench"
	"github.com/kvqbook/kvqbook/internal/cli"
)

// watched is bench.Alternate, which tells what is timed and how far that is. Nothing is told while
// a run is under way.
func watched(ctx context.Context, status *cli.Status, what string, runs int, contestants ...bench.Run) ([]bench.Times, error) {
	status.Stage("timing %s", what)
	done, all := 0, (runs+1)*len(contestants)
	list := make([]bench.Run, len(contestants))
	for i, run := range contestants {
		list[i] = func(ctx context.Context) (time.Duration, error) {
			done++
			status.Detail("run %d of %d", done, all)
			return run(ctx)
		}
	}
	return bench.Alternate(ctx, runs, list...)
}
