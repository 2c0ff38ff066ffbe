package llama

import (
	"testing"

	"github.com/gomlx/compute/dtypes"

	"github.com/kvqbook/kvqbook/internal/testbackend"
	"github.com/kvqbook/kvqbook/kvq"
)

// A model generates on GoMLX's pure-Go backend, without any plugin, the tokens that transformers
// gives: with a full cache and with codes, its loop included.
func TestPureGo(t *testing.T) {
	g := shapeGoldens(t)["llama-3.2-1b"]
	files, err := Open(g.folder(t))
	if err != nil {
		t.Fatal(err)
	}
	m, err := files.Load(testbackend.Go(t), LoadOptions{DType: dtypes.Float32, Weights: PlainWeights})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Finalize()
	g.check(t, m, kvq.Config{}, 1e-3)
	g.check(t, m, kvq.Config{Backend: kvq.Quanto, NBits: 8, QGroupSize: 16, ResidualLength: 4}, 0)
}
