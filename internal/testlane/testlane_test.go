package testlane

import (
	"flag"
	"testing"
)

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
			ran := func(sort func(testing.TB, string)) (ran bool) {
				t.Run("a test", func(t *testing.T) { sort(t, "an example"); ran = true })
				return ran
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
