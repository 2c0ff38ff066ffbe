//go:build linux && cgo

package doctor

import (
	"context"
	"os"

	"github.com/dustin/go-humanize"

	"github.com/kvqbook/kvqbook/internal/asset"
	"github.com/kvqbook/kvqbook/internal/compiled"
)

// compiled looks at the folder of what XLA compiled on a CPU. Without it every process compiles.
func (m *Machine) compiled(context.Context) Finding {
	dir := asset.Compiled()
	switch {
	case os.Getenv(asset.EnvCompiled) == asset.Off:
		return missing("unset "+asset.EnvCompiled, "off by %s: every process compiles, 3 to 20 s", asset.EnvCompiled)
	case dir == "":
		return missing(setup+", or "+asset.EnvCompiled+"=FOLDER", "no folder, since there is no set-up: every process compiles")
	}
	plugin, _ := asset.CPUPlugin()
	const closed = "set " + asset.EnvCompiled + " to a folder of your own"
	kept, err := compiled.Look(dir, plugin)
	if err != nil {
		return ill(closed, "%v; every process compiles", err)
	}
	if err := writable(kept.Dir); err != nil {
		if isFull(err) {
			return ill("make room, or "+closed, "%s is full: %v; every process compiles", kept.Dir, err)
		}
		return ill(closed, "%s cannot be written to: %v; every process compiles", kept.Dir, err)
	}
	if kept.Owner < 0 {
		return well("%s, not there yet", kept.Dir)
	}
	found := well("%s of %s, %d graphs, %s", kept.Dir, userName(kept.Owner), kept.Files, humanize.IBytes(uint64(kept.Bytes)))
	if kept.Dir != dir {
		found.Found += "; read too: " + dir
	}
	return found
}
