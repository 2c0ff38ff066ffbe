package gx_test

import (
	"slices"
	"testing"

	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/testbackend"
)

// Every row gives what lies at its own places, as often as these are named.
func TestTakeAt(t *testing.T) {
	out := MustExecOnce(testbackend.Go(t), gx.TakeAt, [][][]float32{{{1, 2}, {3, 4}}, {{5, 6}, {7, 8}}}, [][]int32{{1, 0, 1}, {0, 0, 1}})
	want := []float32{3, 4, 1, 2, 3, 4, 5, 6, 5, 6, 7, 8}
	if got := tensors.MustCopyFlatData[float32](out); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
