package doctor

import (
	"context"
	"os"

	"github.com/dustin/go-humanize"

	"github.com/kvqbook/kvqbook/internal/asset"
	"github.com/kvqbook/kvqbook/llama"
)

// model looks whether the small model is there, and whole.
func (m *Machine) model(context.Context) Finding {
	path, err := asset.SmallModel()
	if err != nil {
		return ill(setup+", or name another model with --model", "%v", err)
	}
	if _, err := llama.Open(path); err != nil {
		return ill("rm "+path+", then "+setup, "%v", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return ill(setup, "%v", err)
	}
	return well("%s, %s", path, humanize.IBytes(uint64(info.Size())))
}
