package benchcmd

import (
	"cmp"
	"encoding/json"
	"os"
	"slices"

	"github.com/kvqbook/kvqbook/internal/usererr"
)

// joinGrowth makes one report of several that bench growth --json wrote, each of its own contexts.
func joinGrowth(paths []string) (*growthReport, error) {
	type pair struct {
		row   ratioRow
		limit growthLimit
	}
	var joined *growthReport
	var pairs []pair
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, usererr.New("--join: %w", err)
		}
		part := &growthReport{ratioReport: &ratioReport{}}
		if err := json.Unmarshal(data, part); err != nil || len(part.Rows) == 0 || len(part.Limits) != len(part.Rows) {
			return nil, usererr.New("--join %s: want what kvq bench growth --json prints, with at least one row", path)
		}
		if joined == nil {
			joined = part
		} else if part.Device != joined.Device || part.CPU != joined.CPU || part.Cache != joined.Cache || part.Weights != joined.Weights || part.Runs != joined.Runs {
			return nil, usererr.New("--join %s: %s, %s on %s and %s with %d runs, want as in %s: %s, %s on %s and %s with %d runs", path, part.Cache, mib(part.Weights)+" MiB of weights",
				part.Device, part.CPU, part.Runs, paths[0], joined.Cache, mib(joined.Weights)+" MiB of weights", joined.Device, joined.CPU, joined.Runs)
		}
		if part != joined {
			joined.Command += "`, `" + part.Command
		}
		for i, row := range part.Rows {
			pairs = append(pairs, pair{row, part.Limits[i]})
		}
	}
	slices.SortStableFunc(pairs, func(a, b pair) int { return cmp.Compare(a.row.Tokens, b.row.Tokens) })
	joined.Rows, joined.Limits = nil, nil
	for _, p := range pairs {
		joined.Rows, joined.Limits = append(joined.Rows, p.row), append(joined.Limits, p.limit)
	}
	return joined, nil
}
