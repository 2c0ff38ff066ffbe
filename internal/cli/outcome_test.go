package cli

import (
	"strings"
	"testing"
)

// The results are printed once, by whoever comes first, and never in the middle of something else.
func TestOutcome(t *testing.T) {
	t.Run("nothing to print", func(t *testing.T) { new(Outcome).Interrupt() })
	t.Run("interrupted first", func(t *testing.T) {
		var printed []string
		o := &Outcome{}
		o.OnInterrupt(func() { printed = append(printed, "partial") })
		_ = o.Update(func() error { printed = append(printed, "token"); return nil })
		o.Interrupt()
		o.Interrupt()
		_ = o.Update(func() error { printed = append(printed, "late token"); return nil })
		_ = o.Print(func() error { printed = append(printed, "late result"); return nil })
		if got := strings.Join(printed, ","); got != "token,partial" {
			t.Errorf("printed %s, want token,partial", got)
		}
	})
	t.Run("finished first", func(t *testing.T) {
		var printed []string
		o := &Outcome{}
		o.OnInterrupt(func() { printed = append(printed, "partial") })
		_ = o.Print(func() error { printed = append(printed, "result"); return nil })
		o.Interrupt()
		if got := strings.Join(printed, ","); got != "result" {
			t.Errorf("printed %s, want result", got)
		}
	})
}
