package kvq

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"github.com/kvqbook/kvqbook/internal/asset"
	"github.com/kvqbook/kvqbook/internal/testbackend"
)

// TestMain leaves out the examples where there is no XLA plugin: unlike tests, examples cannot skip
// themselves. ./scripts/test requires the plugin, so there they always run.
func TestMain(m *testing.M) {
	flag.Parse()
	if _, err := asset.CPUPlugin(); err != nil && os.Getenv(testbackend.RequireVariable) != "1" {
		fmt.Println("examples are skipped:", err)
		if err := flag.Set("test.skip", "^Example"); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}
