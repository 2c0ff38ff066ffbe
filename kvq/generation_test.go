package kvq_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	. "github.com/kvqbook/kvqbook/kvq"
)

func TestPadLeft(t *testing.T) {
	long := make([]int32, 40) // 48 columns
	tokens, start := PadLeft([][]int32{{1, 2, 3}, long, {}}, 9)
	if diff := cmp.Diff([]int32{45, 8, 48}, start); diff != "" {
		t.Errorf("padding (-want +got):\n%s", diff)
	}
	for i, row := range tokens {
		if len(row) != 48 {
			t.Errorf("row %d has %d columns, want 48", i, len(row))
		}
		for j, token := range row[:start[i]] {
			if token != 9 {
				t.Errorf("row %d, column %d is %d, want the padding", i, j, token)
			}
		}
	}
	if diff := cmp.Diff([]int32{1, 2, 3}, tokens[0][45:]); diff != "" {
		t.Errorf("row 0 (-want +got):\n%s", diff)
	}
}
