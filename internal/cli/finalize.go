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

// FinalizeLast is [Finalize] for what a command holds until its end. Where the process ends with
// the command it frees nothing: that takes XLA some tenths of a second, and the system does it at
// once.
func FinalizeLast(ctx context.Context, frees ...func()) {
	if ctx.Value(endsProcess{}) == nil {
		Finalize(ctx, frees...)
	}
}

// EndsProcess marks the context of a command with which the process ends.
func EndsProcess(ctx context.Context) context.Context {
	return context.WithValue(ctx, endsProcess{}, true)
}

type endsProcess struct{}
