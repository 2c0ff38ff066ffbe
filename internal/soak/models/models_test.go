package models

import (
	"os"
	"testing"

	"github.com/kvqbook/kvqbook/internal/soak"
	"github.com/kvqbook/kvqbook/internal/testlane"
)

func TestMain(m *testing.M) {
	soak.RunChild()
	os.Exit(m.Run())
}

// The quick form of every part.
func TestQuick(t *testing.T) {
	testlane.Slow(t, "compiles graphs of a model")
	for _, p := range Parts {
		t.Run(p.Name, func(t *testing.T) {
			if p.Name == repeats.Name || p.Name == lengths.Name {
				testlane.OnlyAll(t, "compiles a graph for each of many lengths and batches")
			}
			soak.QuickTest(t, []soak.Part{p})
		})
	}
}
