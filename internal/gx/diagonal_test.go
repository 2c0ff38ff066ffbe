package gx_test

import (
	"math"
	"testing"

	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.

	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/testbackend"
)

// Beside the diagonal lies what must not count, infinities too.
func TestDiagonalMean(t *testing.T) {
	inf := float32(math.Inf(1))
	x := [][][]float32{{{1, inf}, {-9, 3}}, {{-2, 5}, {inf, 4}}}
	got := MustNewExec(testbackend.XLA(t), gx.DiagonalMean).MustExec(x)[0].Value().([][][]float32)
	if got[0][0][0] != 2 || got[1][0][0] != 1 || len(got[0]) != 1 || len(got[0][0]) != 1 {
		t.Errorf("means %v, want 2 and 1", got)
	}
}
