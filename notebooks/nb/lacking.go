package nb

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/kvqbook/kvqbook/device"
	"github.com/kvqbook/kvqbook/hub"
	"github.com/kvqbook/kvqbook/internal/asset"
	"github.com/kvqbook/kvqbook/llama"
)

// largeModel is from how many parameters on a model wants a GPU.
const largeModel = 1_000_000_000

// Lacking says in one line what this machine lacks to run a model, named as in [Model], and what to
// do about it; "" for nothing. It asks no hub and loads nothing.
func Lacking(model string) string {
	return lacking(model, slices.ContainsFunc(device.List(), device.Info.GPU))
}

func lacking(model string, gpu bool) string {
	files, fetched := "", false
	switch _, err := os.Stat(model); {
	case model == "":
		files, err = asset.SmallModel()
		fetched = err == nil
	case err == nil:
		files, fetched = model, true
	default:
		files, err = hub.Fetch(context.Background(), model, hub.Options{Offline: true})
		fetched = err == nil
	}
	var lacks []string
	large := !fetched // of a model that is not there this is not known
	if fetched {
		opened, err := llama.Open(files)
		if err != nil {
			return err.Error()
		}
		large = opened.Config().ParameterCount() >= largeModel
	}
	if large && !gpu {
		lacks = append(lacks, "no CUDA GPU (where there is one: ./scripts/setup --cuda)")
	}
	if !fetched {
		lacks = append(lacks, fmt.Sprintf("no files of %s (accept its licence on its page at the hub, run bin/kvq login, set download = true)", model))
	}
	return strings.Join(lacks, "; ")
}
