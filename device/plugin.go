//go:build linux && cgo

package device

/*
#cgo linux LDFLAGS: -ldl
#include <dlfcn.h>
#include <stdlib.h>

typedef const void *(*kvq_get_pjrt_api)(void);

static const void *kvq_call(void *get_pjrt_api) { return ((kvq_get_pjrt_api)get_pjrt_api)(); }
*/
import "C"

import (
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"unsafe"

	"github.com/gomlx/go-xla/pjrt"

	"github.com/kvqbook/kvqbook/internal/asset"
	"github.com/kvqbook/kvqbook/internal/compiled"
)

// entryPoint is the one function that a PJRT plugin exports.
const entryPoint = "GetPjrtApi"

// plugin is one that is loaded. A plugin stays loaded until the process ends.
type plugin struct {
	path     string         // as it was asked for, absolute
	platform string         // see platformOf
	handle   string         // its name in go-xla
	api      unsafe.Pointer // its table of functions
}

// loaded holds the loaded plugins by their real paths. Protected by opening.
var loaded = map[string]plugin{}

// loadPlugin loads the plugin at path, unless it is loaded already.
//
// go-xla could load it by path, but it then takes "cpu", "cuda" or "amd" anywhere in that path for
// the platform (a clone below /home/amd, a CUDA plugin below cpu-tests/), splits it at commas, and
// crashes on a file that was cut off. So the file is checked and loaded here, and handed over under
// a name of our own. That name starts with a slash because go-xla searches the whole system, and
// loads what it finds, for a name that does not.
func loadPlugin(path string) (plugin, error) {
	if err := checkPlugin(path); err != nil {
		return plugin{}, err
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return plugin{}, fmt.Errorf("plugin %s: %w", path, err)
	}
	if p, ok := loaded[real]; ok {
		return p, nil
	}
	p := plugin{path: path, platform: platformOf(path)}
	if p.platform == "cuda" {
		prepareCUDA(path)
	}

	// dlerror speaks of the last failure of this thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cPath, cEntry := C.CString(path), C.CString(entryPoint)
	defer C.free(unsafe.Pointer(cPath))
	defer C.free(unsafe.Pointer(cEntry))
	library := C.dlopen(cPath, C.RTLD_LAZY|C.RTLD_LOCAL)
	if library == nil {
		return plugin{}, fmt.Errorf("plugin %s does not load: %s; `ldd` on it shows what is missing", path, C.GoString(C.dlerror()))
	}
	symbol := C.dlsym(library, cEntry)
	if symbol == nil {
		C.dlclose(library)
		return plugin{}, fmt.Errorf("plugin %s: wanted a PJRT plugin, came a library without %s", path, entryPoint)
	}
	api := C.kvq_call(symbol)
	if api == nil {
		return plugin{}, fmt.Errorf("plugin %s: its %s gave nothing", path, entryPoint)
	}
	p.api = unsafe.Pointer(api)
	p.handle = "/" + p.platform
	if n := len(loaded); n > 0 {
		p.handle = fmt.Sprintf("/%s-%d", p.platform, n+1)
	}
	if err := pjrt.RegisterPreloadedPlugin(p.handle, uintptr(keepCompiled(p))); err != nil {
		return plugin{}, oneLine(err, "plugin %s does not start", path)
	}
	loaded[real] = p
	return p, nil
}

// keepCompiled returns a plugin's table of functions, with graphs kept on disk where there is a
// folder for them: on a CPU and on NVIDIA's GPUs. Elsewhere it has not been tried.
func keepCompiled(p plugin) unsafe.Pointer {
	dir := asset.Compiled()
	if dir == "" || p.platform == "other" {
		return p.api
	}
	table, err := compiled.Table(p.api, p.path, dir, p.platform == "cuda", sideBySide(p))
	if err != nil {
		// Graphs are compiled in every process then, which is slower and nothing else.
		if errors.Is(err, compiled.ErrUntrusted) {
			notKept = err
		}
		return p.api
	}
	return table
}

func init() { asset.NotKept = NotKept }

// notKept is what [NotKept] returns. Protected by opening.
var notKept error

// NotKept returns an error of one line where the folder of compiled graphs was refused, because
// somebody else could have written the machine code in it; nil otherwise. The program runs all the
// same, and compiles its graphs itself.
func NotKept() error {
	opening.Lock()
	defer opening.Unlock()
	return notKept
}

// platformOf guesses a plugin's platform from its file name, else from its folder's: "cpu", "cuda"
// or "other". go-xla shares host memory with the device for "cpu" and uses NVIDIA's libraries for
// "cuda"; with "other" it does neither.
func platformOf(path string) string {
	for _, part := range []string{filepath.Base(path), filepath.Base(filepath.Dir(path))} {
		part = strings.ToLower(part)
		for _, platform := range []string{"cuda", "cpu"} {
			if strings.Contains(part, platform) {
				return platform
			}
		}
	}
	return "other"
}

// checkPlugin reads the file's headers before the system's loader maps it: the loader does not
// survive a file that ends too early.
func checkPlugin(path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("plugin %s: nothing is there; give the path of a PJRT plugin, or run ./scripts/setup for XLA's", path)
	case err != nil:
		return fmt.Errorf("plugin %s: %w", path, err)
	case !info.Mode().IsRegular():
		return fmt.Errorf("plugin %s: wanted a shared library, came something else (mode %s)", path, info.Mode())
	}
	file, err := elf.Open(path)
	var format *elf.FormatError
	switch {
	case errors.As(err, &format), err != nil && info.Size() < 64:
		return fmt.Errorf("plugin %s: wanted a shared library for Linux amd64, came another kind of file (%d bytes)", path, info.Size())
	case err != nil:
		return fmt.Errorf("plugin %s: cut off or damaged (%d bytes): %v; get it anew", path, info.Size(), err)
	}
	defer file.Close()
	if file.Type != elf.ET_DYN || file.Machine != elf.EM_X86_64 {
		return fmt.Errorf("plugin %s: wanted a shared library for Linux amd64, came %s for %s", path, file.Type, file.Machine)
	}
	for _, segment := range file.Progs {
		if end := segment.Off + segment.Filesz; end > uint64(info.Size()) {
			return fmt.Errorf("plugin %s: cut off: wanted at least %d bytes, came %d; get it anew", path, end, info.Size())
		}
	}
	return nil
}
