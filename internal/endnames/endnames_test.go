package endnames

import (
	"slices"
	"testing"
)

func TestIn(t *testing.T) {
	for _, c := range []struct {
		names []string
		want  []int
	}{
		{nil, []int{}},
		{[]string{"a", "b"}, []int{}},
		{[]string{"<|end_of_text|>", "a", "<|eom_id|>", "<|eot_id|>"}, []int{0, 2, 3}},
		{[]string{"</s>", "<|im_end|>", "<|fim_pad|>", "<|file_sep|>", "<|fim_prefix|>"}, []int{0, 1, 2, 3}},
		{[]string{"<|end|>", "x"}, []int{0}},
		{[]string{"<|end|>", "<|return|>", "<|call|>"}, []int{1, 2}},
		{[]string{"<|end|>", "<|calls|>", "<|flush|>"}, []int{1, 2}},
		{[]string{"</s>", "<|tool_response>"}, []int{1}},
	} {
		if got := In(c.names); !slices.Equal(got, c.want) {
			t.Errorf("%q: %v, want %v", c.names, got, c.want)
		}
	}
}
