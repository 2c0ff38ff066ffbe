package generate

import "testing"

func TestPromptColumns(t *testing.T) {
	for length, want := range map[int]int{1: 16, 16: 16, 17: 32, 33: 48, 49: 64, 65: 96, 100: 128, 129: 192, 1025: 1536, 2048: 2048} {
		if got := PromptColumns(length); got != want {
			t.Errorf("PromptColumns(%d) = %d, want %d", length, got, want)
		}
	}
}
