package nb

import (
	"context"
	"time"

	"github.com/kvqbook/kvqbook/internal/engine"
	"github.com/kvqbook/kvqbook/llama"
)

// StepTime measures what a new token of one row costs when its cache holds so many tokens: the
// fastest of four blocks of steps. The cache has made-up contents, so no text of that length has to
// be read first.
func StepTime(ctx context.Context, g *llama.Generator, tokens int) time.Duration {
	const steps, blocks = 8, 4
	timer := Must(engine.NewDecodeTimer(ctx, g, 1, tokens, steps, false))
	defer timer.Finalize()
	best := Must(timer.Run(ctx))
	for range blocks - 1 {
		best = min(best, Must(timer.Run(ctx)))
	}
	return best
}
