package usererr

import "testing"

func TestOneOf(t *testing.T) {
	for want, got := range map[string]string{
		"":                OneOf([]int{}),
		"2":               OneOf([]int{2}),
		"2 or 3":          OneOf([]int{2, 3}),
		`"a", "b" or "c"`: OneOf([]string{"a", "b", "c"}),
	} {
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
