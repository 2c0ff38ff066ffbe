package soak

import (
	"testing"

	"github.com/kvqbook/kvqbook/internal/asset"
)

// QuickTest runs the quick form of each part as a subtest. Only tests call it.
func QuickTest(t *testing.T, parts []Part) {
	root, err := asset.Root()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range parts {
		t.Run(p.Name, func(t *testing.T) {
			runner := Runner{Root: root, Folder: Folder(root), Quick: true, Out: t.Output()}
			outcome, err := runner.Run(t.Context(), p)
			if err != nil {
				t.Fatal(err)
			}
			for _, line := range outcome.Failures {
				t.Error(line)
			}
			if !outcome.Finished {
				t.Error("not finished")
			}
		})
	}
}
