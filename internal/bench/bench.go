// Package bench times things against each other on machines that others use too. It runs all of
// them in alternation, several times, so that what slows one down slows the others down as well. It
// reports ratios, with minimum and median.
package bench

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// Times are the durations of one contestant, a run each.
type Times []time.Duration

// Min is the shortest.
func (t Times) Min() time.Duration { return slices.Min(t) }

// Median is the middle one, or the mean of the two in the middle.
func (t Times) Median() time.Duration {
	sorted := slices.Sorted(slices.Values(t))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// Ratio is how many times faster one contestant is than another; above 1 is faster.
type Ratio struct {
	Min    float64 `json:"min"`    // of the shortest times
	Median float64 `json:"median"` // of the ratios of runs that were made one after the other
}

// Faster compares: how many times faster t is than baseline. Both have the same number of runs.
func (t Times) Faster(baseline Times) Ratio {
	pairs := make([]float64, len(t))
	for i := range t {
		pairs[i] = float64(baseline[i]) / float64(t[i])
	}
	slices.Sort(pairs)
	n := len(pairs)
	return Ratio{
		Min:    float64(baseline.Min()) / float64(t.Min()),
		Median: (pairs[(n-1)/2] + pairs[n/2]) / 2,
	}
}

func (r Ratio) String() string { return fmt.Sprintf("%.2f / %.2f", r.Min, r.Median) }

// Run measures one thing once.
type Run func(ctx context.Context) (time.Duration, error)

// Alternate gives every contestant one run that does not count and then runs counted ones, in
// alternation.
func Alternate(ctx context.Context, runs int, contestants ...Run) ([]Times, error) {
	out := make([]Times, len(contestants))
	for i := range runs + 1 {
		for c, run := range contestants {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			took, err := run(ctx)
			if err != nil {
				return nil, err
			}
			if i > 0 {
				out[c] = append(out[c], took)
			}
		}
	}
	return out, nil
}
