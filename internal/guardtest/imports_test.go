package guardtest

import (
	"slices"
	"strings"
	"testing"

	"github.com/kvqbook/kvqbook/internal/asset"
	"github.com/kvqbook/kvqbook/internal/private"
)

// The libraries link no backend, as their package comments say: of go-xla they have the writer of
// programs alone.
func TestImports(t *testing.T) {
	out, err := goTool("list", "-deps", asset.Module+"/kvq", asset.Module+"/llama")
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	all := strings.Fields(out)
	if !slices.Contains(all, private.GoXLA+"/stablehlo") {
		t.Error("stablehlo is not imported: kvq's package comment says that it is")
	}
	for _, path := range all {
		for _, backend := range []string{private.GoXLA + "/compute", private.GoXLA + "/pjrt", "github.com/gomlx/compute/gobackend", private.GoMLX + "/backends", asset.Module + "/device"} {
			if strings.HasPrefix(path, backend) {
				t.Errorf("%s is linked", path)
			}
		}
	}
}
