package cli

import "context"

// Finalize frees what a command used, in this order; defer it. After an interruption it frees
// nothing: calls that nobody waits for may be under way, and the process ends.
func Finalize(ctx context.Context, frees ...func()) {
	if ctx.Err() != nil {
		return
	}
	for _, free := range frees {
		free()
	}
}
