package jinja

import (
	"testing"
	"time"
)

func TestStrftime(t *testing.T) {
	july := time.Date(2024, time.July, 26, 12, 0, 0, 0, time.UTC)
	for format, want := range map[string]string{
		"%d %B %Y, %H:%M %% %q %": "26 July 2024, 12:00 % %q %",
		"%-d/%-m %-H %-M":         "26/7 12 0",
		"%a %A %b %j %I %p %y":    "Fri Friday Jul 208 12 PM 24",
		"%F %T %D %R %e %u %w %C": "2024-07-26 12:00:00 07/26/24 12:00 26 5 5 20",
	} {
		if got, ok := strftime(july, format); got != want || !ok {
			t.Errorf("%q: %q, want %q", format, got, want)
		}
	}
	for _, format := range []string{"%_d", "%Ey", "%10d", "%V", "%-"} {
		if got, ok := strftime(july, format); ok {
			t.Errorf("%q: %q, want a refusal", format, got)
		}
	}
}
