package generate

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/kvqbook/kvqbook/internal/stage"
)

type graph struct{}

func (graph) Free() {}

// waits remembers for a test.
type waits map[string]time.Duration

func (w waits) Last(key string) (time.Duration, bool) { d, ok := w[key]; return d, ok }
func (w waits) Took(key string, d time.Duration)      { w[key] = d }

// Two models' graphs for the same shapes are told apart; a graph that failed, or belongs to
// nothing that has a name, is not remembered.
func TestWaitsAreRemembered(t *testing.T) {
	w := waits{}
	ctx := stage.WithHistory(context.Background(), w)
	slowly := func(err error) func() (graph, error) {
		return func() (graph, error) { time.Sleep(20 * time.Millisecond); return graph{}, err }
	}
	type shape struct{ rows, tokens int }
	for _, c := range []struct {
		of   string
		err  error
		want int // remembered by then
	}{{"one model", nil, 1}, {"another", nil, 2}, {"one model", nil, 2}, {"", nil, 2}, {"a third", errors.New("no memory"), 2}} {
		ps := Programs[graph]{Of: c.of}
		if err := ps.Start(shape{1, 16}, slowly(c.err)).Wait(ctx); !errors.Is(err, c.err) {
			t.Fatal(err)
		}
		if len(w) != c.want {
			t.Errorf("%q: %v", c.of, w)
		}
	}
	ps := Programs[graph]{Of: "one model"}
	if ps.Start(shape{2, 16}, slowly(nil)).Wait(ctx); len(w) != 3 {
		t.Errorf("another shape: %v", w)
	}
	for key, d := range w {
		if d < time.Millisecond {
			t.Errorf("%q took %v", key, d)
		}
	}
}
