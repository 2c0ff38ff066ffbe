//go:build linux && cgo

package device

import (
	"fmt"
	"os"
	"path/filepath"
	"unsafe"

	"github.com/gomlx/compute"
	"github.com/gomlx/go-xla/pjrt"

	"github.com/kvqbook/kvqbook/internal/asset"
	"github.com/kvqbook/kvqbook/internal/compiled"
	"github.com/kvqbook/kvqbook/internal/private"
	"github.com/kvqbook/kvqbook/internal/usererr"
)

// keeping is the table of functions that KeepCompiled has made. Protected by opening.
var keeping unsafe.Pointer

// KeepCompiled has a backend that was opened without this package, by compute.New, say, keep the
// graphs that took long to compile in a folder, and find them there in the next process, as Open
// does by itself. It is for XLA on a CPU, for one plugin in a process, and to be called before
// anything is compiled. Where graphs are kept already, or $KVQ_COMPILED is "off", it does nothing.
//
// dir is made when it is needed; "" stands for $KVQ_COMPILED, the set-up's folder or, where there
// is none, kvqbook/compiled in the user's cache folder. What is kept is machine code: a folder that
// somebody else could have written is an error.
func KeepCompiled(backend compute.Backend, dir string) error {
	if os.Getenv(asset.EnvCompiled) == asset.Off {
		return nil
	}
	opening.Lock()
	defer opening.Unlock()
	table, plugin := tableOf(backend)
	if table == nil {
		return usererr.New("device.KeepCompiled: want a backend of go-xla, got %q", backend.Name())
	}
	path := plugin.Path()
	for real, p := range loaded {
		if p.handle == plugin.Name() {
			path = real
			if *table != p.api {
				return nil
			}
		}
	}
	if *table == keeping {
		return nil
	}
	if platformOf(path) != "cpu" {
		return usererr.New("device.KeepCompiled: want XLA's plugin for a CPU, got %s: elsewhere it has not been tried", path)
	}
	if dir == "" {
		dir = asset.Compiled()
	}
	if dir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return fmt.Errorf("device.KeepCompiled: no folder was given: %w", err)
		}
		dir = filepath.Join(cache, "kvqbook", "compiled")
	}
	kept, err := compiled.Table(*table, path, dir, false, nil)
	if err != nil {
		return fmt.Errorf("device.KeepCompiled: %w", err)
	}
	*table, keeping = kept, kept
	return nil
}

// tableOf returns where go-xla keeps the table of functions (PJRT_Api) of a backend's plugin, and
// the plugin; nil where it is not go-xla's.
func tableOf(backend compute.Backend) (*unsafe.Pointer, *pjrt.Plugin) {
	client, ok := private.BackendClient.Find(backend)
	if !ok {
		return nil, nil
	}
	found, ok := private.ClientPlugin.Find(client)
	if !ok {
		return nil, nil
	}
	plugin, ok := found.Interface().(*pjrt.Plugin)
	table, there := private.PluginAPI.Find(found)
	if !ok || !there || plugin == nil {
		return nil, nil
	}
	return (*unsafe.Pointer)(table.Addr().UnsafePointer()), plugin
}
