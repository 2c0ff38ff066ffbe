package stage

import (
	"context"
	"testing"
	"time"
)

// memory is a History for tests.
type memory map[string]time.Duration

func (m memory) Last(key string) (time.Duration, bool) { d, ok := m[key]; return d, ok }
func (m memory) Took(key string, d time.Duration)      { m[key] = d }

// A wait that was long before is told beforehand, and how long it takes is remembered once it is
// over. Without a key, or a memory, it is told and nothing more.
func TestCompile(t *testing.T) {
	var told []string
	m := memory{"long": 9640 * time.Millisecond, "short": 900 * time.Millisecond}
	ctx := WithHistory(With(context.Background(), func(s Stage) { told = append(told, s.String()) }), m)
	done := Compile(ctx, "long", "1 row")
	if m["long"] != 9640*time.Millisecond {
		t.Error("remembered before it is over")
	}
	done()
	if d := m["long"]; d < 0 || d > time.Second {
		t.Errorf("remembered %v", d)
	}
	Compile(ctx, "short", "2 rows")
	Compile(ctx, "new", "3 rows")()
	Compile(ctx, "", "4 rows")()
	Compile(context.Background(), "nobody listens", "5 rows")()
	want := []string{"compiling for 1 row (9.6 s last time here)", "compiling for 2 rows", "compiling for 3 rows", "compiling for 4 rows"}
	if len(told) != len(want) {
		t.Fatalf("%q", told)
	}
	for i := range want {
		if told[i] != want[i] {
			t.Errorf("%q, want %q", told[i], want[i])
		}
	}
	if _, known := m["new"]; !known || len(m) != 3 {
		t.Errorf("%v", m)
	}
}
