package kvq_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/gomlx/compute/dtypes"

	"github.com/kvqbook/kvqbook/internal/testlane"
	. "github.com/kvqbook/kvqbook/kvq"
)

// headDims are head dimensions of models, and others that are multiples of nothing much.
var headDims = []int{8, 9, 16, 20, 24, 32, 36, 40, 48, 56, 72, 80, 96, 100, 112, 120, 160, 192, 576}

// TestEveryHead runs the suite over head dimensions times the tutorial's configuration and every
// preset, two of each with everything that is compiled apart.
func TestEveryHead(t *testing.T) {
	configs := map[string]Config{"tutorial": {Backend: Quanto, NBits: 4, QGroupSize: 32, ResidualLength: 9}}
	for _, name := range Presets() {
		configs[name] = presetOf(t, name)
	}
	for _, dim := range headDims {
		for name, config := range configs {
			t.Run(fmt.Sprintf("%d/%s", dim, name), func(t *testing.T) {
				testlane.OnlyAll(t, "TestSuite has such a cache")
				t.Parallel()
				deep := slices.Contains([]int{20, 100}, dim) && (name == "tutorial" || name == "balanced")
				suiteCase{name: name, config: config, dtype: dtypes.Float32, dim: dim, deep: deep}.check(t, nil)
			})
		}
	}
}
