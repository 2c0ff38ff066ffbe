package testlane

import (
	"flag"
	"testing"
)

// skipping notes that a test was skipped.
type skipping struct {
	testing.TB
	skipped bool
}

func (s *skipping) Helper()     {}
func (s *skipping) Skip(...any) { s.skipped = true }

// Each lane runs what the lanes before it run, and more.
func TestLanes(t *testing.T) {
	short := flag.Lookup("test.short").Value
	before := short.String()
	defer func() { _ = short.Set(before) }()
	for _, lane := range []struct {
		name          string
		short, all    string
		slow, onlyAll bool // run
	}{
		{"quick", "true", "", false, false},
		{"default", "false", "", true, false},
		{"all", "false", "1", true, true},
		{"all wins over -short", "true", "1", true, true},
	} {
		t.Run(lane.name, func(t *testing.T) {
			if err := short.Set(lane.short); err != nil {
				t.Fatal(err)
			}
			t.Setenv(AllVariable, lane.all)
			ran := func(sort func(testing.TB, string)) bool {
				s := &skipping{TB: t}
				sort(s, "an example")
				return !s.skipped
			}
			if slow := ran(Slow); slow != lane.slow {
				t.Errorf("Slow runs: %t, want %t", slow, lane.slow)
			}
			if all := ran(OnlyAll); all != lane.onlyAll {
				t.Errorf("OnlyAll runs: %t, want %t", all, lane.onlyAll)
			}
		})
	}
}
