// Package gpu says what device a graph runs on, as far as kernels and graphs depend on it.
package gpu

import (
	"fmt"
	"reflect"
	"strings"
	"sync"
	"weak"

	"github.com/gomlx/compute"

	"github.com/kvqbook/kvqbook/internal/pjrt"
)

// Device describes one device. The zero value is a device of which nothing is known.
type Device struct {
	Platform     string // "cuda", "rocm", "gpu" (another one), "cpu", "go" (pure Go), …; "" unknown
	Name         string // the maker's, such as "NVIDIA H100 80GB HBM3"; "" unknown
	Major, Minor int    // CUDA's compute capability, 9 and 0 for an H100; 0 unknown
	Processors   int    // multiprocessors of a GPU, 132 for an H100; 0 unknown
}

// GPU reports whether the device is a GPU, of any maker.
func (d Device) GPU() bool { return d.CUDA() || d.Platform == "rocm" || d.Platform == "gpu" }

// CUDA reports whether the device is a GPU of NVIDIA.
func (d Device) CUDA() bool { return d.Platform == "cuda" }

// Compute reports whether the compute capability is known and at least major.minor.
func (d Device) Compute(major, minor int) bool {
	return d.Major > major || d.Major == major && d.Minor >= minor && d.Major > 0
}

// Of describes a backend's first device; all devices of a backend are taken to be alike. XLA is
// asked once for each backend. Where it does not answer (another backend, a program built without
// cgo), the platform is what the backend's own words tell, and the rest is zero.
func Of(backend compute.Backend) Device {
	key, ok := keyOf(backend)
	if !ok {
		return read(backend)
	}
	if d, ok := known.Load(key); ok {
		return d.(Device)
	}
	d := read(backend)
	known.Store(key, d)
	return d
}

// known holds the devices by backend. Weak pointers do not keep a backend alive, and a later one at
// the same address is not equal to it.
var known sync.Map // weak.Pointer[byte] → Device

func keyOf(backend compute.Backend) (key weak.Pointer[byte], ok bool) {
	v := reflect.ValueOf(backend)
	if v.Kind() != reflect.Pointer || v.IsNil() || v.Type().Elem().Size() == 0 {
		return key, false
	}
	return weak.Make((*byte)(v.UnsafePointer())), true
}

// read asks the backend.
func read(backend compute.Backend) Device {
	words := backend.Name()
	if backend.NumDevices() > 0 {
		words += " " + backend.DeviceDescription(0)
	}
	device, err := pjrt.Of(backend, 0)
	if err != nil {
		return describe("", "", nil, words)
	}
	// What one call does not tell stays unknown.
	platform, _ := device.Platform()
	kind, _ := device.Kind()
	attributes, _ := device.Attributes()
	return describe(platform, kind, attributes, words)
}

// describe makes a Device of PJRT's answers, and of the backend's words where the platform's name
// is none of the usual ones.
func describe(platform, kind string, attributes map[string]any, words string) Device {
	d := Device{Platform: platformOf(platform), Name: kind}
	if d.Platform == "" {
		d.Platform = platformOf(words)
	}
	if d.Platform == "" {
		d.Platform = strings.ToLower(platform)
	}
	if n, ok := attributes["core_count"].(int64); ok && n > 0 {
		d.Processors = int(n)
	}
	if text, ok := attributes["compute_capability"].(string); ok && d.CUDA() {
		var major, minor int
		if n, err := fmt.Sscanf(text, "%d.%d", &major, &minor); n == 2 && err == nil {
			d.Major, d.Minor = major, minor
		}
	}
	return d
}

// platformOf finds the name of a platform in words; "" where there is none.
func platformOf(words string) string {
	words = strings.ToLower(words)
	for _, name := range []string{"cuda", "rocm", "gpu", "cpu"} {
		if strings.Contains(words, name) {
			return name
		}
	}
	if strings.HasPrefix(words, "go backend") {
		return "go"
	}
	return ""
}
