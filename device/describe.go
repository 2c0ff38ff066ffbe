package device

import (
	"fmt"
	"strings"

	"github.com/gomlx/compute"
)

// Info is what can be said of one device. The zero value describes nothing.
type Info struct {
	Name string // as for Open, "xla:cuda" say
	// "cpu" or "cuda" as XLA calls it, "go" for the pure-Go backend, "" where it did not open
	Platform string
	Version  string   // of the PJRT interface, "0.115" say; "" for the pure-Go backend
	Plugin   string   // path of the plugin; "" for the pure-Go backend or where none was found
	Devices  []string // XLA's description of each of its devices
	Err      error    // why it cannot be opened, in one line; nil where it can
}

// GPU reports whether the device opened and is an NVIDIA GPU.
func (i Info) GPU() bool { return i.Err == nil && i.Platform == "cuda" }

// String returns one line, such as "xla:cpu: platform cpu, 4 devices, PJRT 0.115".
func (i Info) String() string {
	if i.Err != nil {
		return i.Err.Error()
	}
	line := fmt.Sprintf("%s: platform %s, %d device", i.Name, i.Platform, len(i.Devices))
	if len(i.Devices) != 1 {
		line += "s"
	}
	if i.Version != "" {
		line += ", PJRT " + i.Version
	}
	return line
}

// pureGoName is what the pure-Go backend calls itself; it is registered, and opened, as "go".
const pureGoName = "Go Backend"

// NoGPUWarning is what to tell a reader whose machine has no GPU; it is the tutorial's, in the
// terms of this program.
const NoGPUWarning = "GPU device not found: everything below runs on the CPU, which is very slow for a model of billions of parameters " +
	"(the small model of the set-up is fine). With an NVIDIA GPU, run ./scripts/setup --cuda and choose " + XLACUDA + "."

// Warning returns [NoGPUWarning] when none of the devices is a GPU that can be used, else "". In a
// program without XLA it says that instead.
func Warning(infos []Info) string {
	for _, info := range infos {
		if info.GPU() {
			return ""
		}
	}
	if errNoXLA != nil {
		return errNoXLA.Error()
	}
	return NoGPUWarning
}

// List describes the devices that have a name: XLA's CPU, XLA's CUDA, the pure-Go backend, in this
// order. One that cannot be opened carries its error; the list is always complete.
func List() []Info {
	infos := make([]Info, 0, 3)
	for _, name := range []string{XLACPU, XLACUDA, PureGo} {
		infos = append(infos, Inspect(name))
	}
	return infos
}

// Inspect opens the device of that name, as [Open] does, describes it and closes it again. What
// went wrong is in Info.Err.
func Inspect(name string) Info {
	name = fullName(name)
	backend, err := Open(name)
	if err != nil {
		info := Info{Name: name, Err: err}
		info.Plugin, _ = pluginPath(name)
		return info
	}
	defer backend.Finalize()
	info := Describe(backend)
	info.Name = name
	return info
}

// Describe says what a backend of [Open] is, without opening anything. A backend from elsewhere is
// described by what its own methods tell.
func Describe(backend compute.Backend) Info {
	info := Info{Name: backend.Name(), Platform: backend.Name()}
	for n := range backend.NumDevices() {
		info.Devices = append(info.Devices, strings.TrimSpace(backend.DeviceDescription(compute.DeviceNum(n))))
	}
	if info.Name == pureGoName {
		info.Name, info.Platform = PureGo, PureGo
	}
	describePlugin(backend, &info)
	return info
}
