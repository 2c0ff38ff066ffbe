package exercise

import (
	"testing"

	"github.com/kvqbook/kvqbook/notebooks/solutions"
)

func TestParameters(t *testing.T) {
	tell(t,
		tried{"solution", Parameters(solutions.Parameters), ""},
		tried{"norms forgotten", Parameters(func(v, h, i, l int) int64 {
			return solutions.Parameters(v, h, i, l) - int64(2*h*l+h)
		}), "with Llama-2-7B (32000 tokens, hidden size 4096, inner size 11008, 32 layers) the number of parameters is 6.73815e+09, wanted 6.73842e+09"},
		tried{"one table of the vocabulary", Parameters(func(v, h, i, l int) int64 { return solutions.Parameters(v, h, i, l) - int64(v*h) }), "0 of 2 cases"},
		tried{"Llama-2-7B alone", Parameters(func(_, _, _, _ int) int64 { return solutions.Parameters(32000, 4096, 11008, 32) }), "with Llama-2-13B"},
		tried{"stub", Parameters(func(_, _, _, _ int) int64 { return 0 }), "is 0, wanted"},
	)
}

func TestStepFloor(t *testing.T) {
	tell(t,
		tried{"solution", StepFloor(solutions.StepFloor), ""},
		tried{"weights for each row", StepFloor(func(w, c int64, r int, b float64) float64 { return float64(r) * solutions.StepFloor(w, c, 1, b) }),
			"with 12 GB of weights, 32 rows of 2 GB and 4,000 GB/s the time in milliseconds is 112, wanted 19"},
		tried{"in seconds", StepFloor(func(w, c int64, r int, b float64) float64 { return solutions.StepFloor(w, c, r, b) / 1000 }), "is 0.003, wanted 3"},
		tried{"the weights alone", StepFloor(func(w, _ int64, r int, b float64) float64 { return solutions.StepFloor(w, 0, r, b) }), "a row of 2 GB"},
		tried{"stub", StepFloor(func(_, _ int64, _ int, _ float64) float64 { return 0 }), "is 0, wanted 3"},
	)
}

func TestRowsToOutweigh(t *testing.T) {
	tell(t,
		tried{"solution", RowsToOutweigh(solutions.RowsToOutweigh), ""},
		tried{"one too few", RowsToOutweigh(func(w, p int64, n int) int { return int(w / (p * int64(n))) }), "with Llama-2-7B in 16 bits and 4,096 tokens the number of rows is 6, wanted 7"},
		tried{"as large counts", RowsToOutweigh(func(w, p int64, n int) int { return int((w + p*int64(n) - 1) / (p * int64(n))) }), "with a row that is as large as the weights the number of rows is 1, wanted 2"},
		tried{"stub", RowsToOutweigh(func(_, _ int64, _ int) int { return 0 }), "is 0, wanted 7"},
	)
}
