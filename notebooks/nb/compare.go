package nb

import (
	"fmt"
	"math"
)

// Compare says how an answer to an exercise does: exact, close (within a thousandth), or how far
// off it is.
func Compare(what string, got, want []float64) { fmt.Println(comparison(what, got, want)) }

func comparison(what string, got, want []float64) string {
	if len(got) != len(want) {
		return fmt.Sprintf("%s: not yet. %d numbers came, %d were wanted", what, len(got), len(want))
	}
	worst, at := 0.0, 0
	for i := range got {
		if d := math.Abs(got[i] - want[i]); d > worst || math.IsNaN(d) {
			worst, at = d, i
		}
	}
	switch {
	case worst == 0:
		return what + ": exact"
	case worst <= 1e-3:
		return fmt.Sprintf("%s: close, largest difference %.2g", what, worst)
	}
	return fmt.Sprintf("%s: not yet. Case %d: yours %.4g, wanted %.4g", what, at+1, got[at], want[at])
}
