package generate

import (
	"context"
	"fmt"
	"maps"
	"sync"

	"github.com/kvqbook/kvqbook/internal/stage"
)

// Program is a graph that is being compiled in the background, or was.
type Program[C any] struct {
	Of   C             // what it was compiled to, once Wait has returned nil
	name string        // what it is for
	key  string        // tells it apart from all graphs of the machine; "" where nothing does
	done chan struct{} // closed when Of or err is there
	err  error
}

// Wait returns when the program is compiled, or early with the context's error; then it goes on
// compiling.
func (p *Program[C]) Wait(ctx context.Context) error {
	select {
	case <-p.done:
		return p.err
	default:
	}
	there := stage.Compile(ctx, p.key, p.name)
	select {
	case <-p.done:
		if p.err == nil {
			there()
		}
		return p.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Programs compiles each graph once. C is what a graph is compiled to. The zero value is ready for
// use. Safe for concurrent use.
type Programs[C interface{ Free() }] struct {
	// Of names what all the graphs are of: a model, a cache, a device. Set before the first Start;
	// "" where nothing names it.
	Of string

	mu    sync.Mutex
	known map[any]*Program[C]
	busy  sync.WaitGroup // compilations and calls that their caller no longer waits for
}

// Start begins to compile a graph, unless one with this key was begun already. key is comparable
// and tells apart all graphs; as a fmt.Stringer it says what the graph is for. What failed is
// compiled again by the next Start.
func (ps *Programs[C]) Start(key any, compile func() (C, error)) *Program[C] {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if p := ps.known[key]; p != nil {
		return p
	}
	p := &Program[C]{name: fmt.Sprint(key), done: make(chan struct{})}
	if ps.Of != "" {
		p.key = fmt.Sprintf("%s\n%#v", ps.Of, key)
	}
	if ps.known == nil {
		ps.known = map[any]*Program[C]{}
	}
	ps.known[key] = p
	ps.busy.Go(func() {
		defer close(p.done)
		if p.Of, p.err = compile(); p.err != nil {
			ps.mu.Lock()
			delete(ps.known, key)
			ps.mu.Unlock()
		}
	})
	return p
}

// All are the graphs that are compiled, by their keys; it waits for those that are being compiled.
func (ps *Programs[C]) All() map[any]C {
	ps.mu.Lock()
	known := maps.Clone(ps.known)
	ps.mu.Unlock()
	all := map[any]C{}
	for key, p := range known {
		if p.Wait(context.Background()) == nil {
			all[key] = p.Of
		}
	}
	return all
}

// Len is how many graphs were compiled, or are being compiled.
func (ps *Programs[C]) Len() int {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	return len(ps.known)
}

// Call makes a call on the device. When ctx ends it returns early with the context's error; the
// call then finishes unheard, and free gets its results.
func Call[C interface{ Free() }, R any](ctx context.Context, ps *Programs[C], call func() (R, error), free func(R)) (R, error) {
	var none R
	if err := ctx.Err(); err != nil {
		return none, err
	}
	type result struct {
		out R
		err error
	}
	heard := make(chan result, 1)
	ps.busy.Go(func() {
		var r result
		r.out, r.err = call()
		heard <- r
	})
	select {
	case r := <-heard:
		return r.out, r.err
	case <-ctx.Done():
		ps.busy.Go(func() {
			if r := <-heard; r.err == nil {
				free(r.out)
			}
		})
		return none, ctx.Err()
	}
}

// Finalize waits for what is under way and frees the compiled programs.
func (ps *Programs[C]) Finalize() {
	ps.busy.Wait()
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for _, p := range ps.known {
		p.Of.Free()
	}
	clear(ps.known)
}
