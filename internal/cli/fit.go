package cli

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/spf13/pflag"

	"github.com/kvqbook/kvqbook/device"
	"github.com/kvqbook/kvqbook/internal/bench"
	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/llama"
	"github.com/kvqbook/kvqbook/llama/fit"
)

// registerMaxMemory is for commands that say or check what fits.
func (f *ModelFlags) registerMaxMemory(fs *pflag.FlagSet) {
	fs.StringVar(&f.maxMemory, "max-memory", "", "`size` such as 16GiB that weights, cache and work may take on each device (default: what the device has)")
}

// ParseMaxMemory returns the size asked for, 0 for none.
func (f *ModelFlags) ParseMaxMemory() (int64, error) {
	if f.maxMemory == "" {
		return 0, nil
	}
	limit, err := humanize.ParseBytes(f.maxMemory)
	if err != nil || limit == 0 || limit > math.MaxInt64 {
		return 0, usererr.New("--max-memory %q, want a size such as 16GiB or 800MB", f.maxMemory)
	}
	return int64(limit), nil
}

// What the program and XLA's compiler take beside a run that fit.Request.Needs counts, on a CPU:
// a part that every model has, and one for each of its layers, whose graphs are compiled as a
// whole. Measured in control groups by ./scripts/soak too-little-memory.
const (
	besideModel = 256 << 20
	besideLayer = 12 << 20
)

// Room is how much memory there is for a run on each device; 0: not known.
type Room struct {
	Bytes  int64  `json:"bytes"`
	Source string `json:"source"`
}

// Room asks the user's flag, else the device. A CPU shares its memory with the program and XLA's
// compiler, so what these take for a model of so many layers is left out.
func (f *ModelFlags) Room(backend compute.Backend, layers int) (Room, error) {
	limit, err := f.ParseMaxMemory()
	if err != nil || limit > 0 {
		return Room{limit, "--max-memory"}, err
	}
	m := device.MemoryOf(backend, 0)
	for n := 1; n < f.Devices; n++ {
		if other := device.MemoryOf(backend, compute.DeviceNum(n)); other.Limit-other.InUse < m.Limit-m.InUse {
			m = other
		}
	}
	if m.Limit == 0 {
		return Room{}, nil
	}
	left := m.Limit - m.InUse
	if info := device.Describe(backend); !info.GPU() {
		beside := int64(besideModel + layers*besideLayer)
		m.Source += fmt.Sprintf(", less %s for the program and the compiler", InUnits(beside))
		// XLA's devices on a CPU share the machine's memory. No room is known to be none.
		left = max(1, (left-beside)/int64(max(1, f.Devices)))
	}
	return Room{left, m.Source}, nil
}

// widens tells whether a device multiplies 16-bit matrices as float32.
func widens(info device.Info) bool { return !info.GPU() }

// CheckFit refuses runs that cannot fit the device, in one line, before anything is loaded. Several
// are there one after the other.
func (f *ModelFlags) CheckFit(backend compute.Backend, info device.Info, runs ...fit.Request) error {
	for _, r := range runs {
		there, err := f.Room(backend, r.Model.Layers)
		if err != nil || there.Bytes == 0 {
			return err
		}
		r.Devices, r.Backend = f.Devices, backend
		if r.DType == dtypes.InvalidDType {
			r.DType = f.DTypeOn(info.GPU())
		}
		n, err := r.Needs(widens(info))
		if err != nil {
			return err
		}
		if n.Total() > there.Bytes {
			return usererr.New("the run does not fit: weights %s, cache %s and work %s are %s, %s has %s (%s); %s", InUnits(n.Weights), InUnits(n.Cache.Total()+n.Beside),
				InUnits(n.Work), InUnits(n.Total()), info.Name, InUnits(there.Bytes), there.Source, advice(r, there.Bytes, widens(info)))
		}
	}
	return nil
}

// InUnits is a number of bytes in a unit that says something.
func InUnits(bytes int64) string { return humanize.IBytes(uint64(bytes)) }

// advice says what would fit instead.
func advice(r fit.Request, limit int64, widened bool) string {
	fits := func(r fit.Request) bool {
		n, err := r.Needs(widened)
		return err == nil && n.Total() <= limit
	}
	smallest := r
	smallest.Batch, smallest.Prompt, smallest.NewTokens = 1, 1, 1
	if !fits(smallest) {
		return "not even one token would fit: take --devices, a 16-bit --dtype on a GPU, or a smaller model"
	}
	var list []string
	names := PresetNames()
	for _, name := range names[slices.Index(names, "balanced"):] { // the one to take as a rule, then those of fewer bits
		other := r
		if config, err := PresetFor(name, r.Model); err == nil {
			if other.Cache = config; fits(other) {
				list = append(list, "--preset "+name)
				break
			}
		}
	}
	if n := MostThatFits(r.Batch, func(n int) bool { o := r; o.Batch = n; return fits(o) }); n > 0 {
		list = append(list, fmt.Sprintf("a batch of %d", n))
	}
	if n := MostThatFits(r.NewTokens, func(n int) bool { o := r; o.NewTokens = n; return fits(o) }); n > 0 {
		list = append(list, fmt.Sprintf("%d new tokens", n))
	}
	if len(list) == 0 {
		return "a shorter prompt would fit; kvq memory tells what does"
	}
	return "this fits: " + strings.Join(list, ", or ")
}

// MostThatFits is the largest number up to most that fits, 0 if none does. What fits once fits for
// all smaller ones.
func MostThatFits(most int, fits func(int) bool) int {
	low, high := 0, most
	for low < high {
		if middle := (low + high + 1) / 2; fits(middle) {
			low = middle
		} else {
			high = middle - 1
		}
	}
	return low
}

// PeakJSON is the most memory that a run took, in bytes, and how fast the weights came.
type PeakJSON struct {
	HostPeak int64 `json:"host_peak_bytes"` // of the process: resident pages
	// of the first device; absent where it uses the host's memory
	DevicePeak *int64 `json:"device_peak_bytes,omitempty"`
	Weights    int64  `json:"weights_bytes"` // on all devices together
	// of the files, opening the device included
	LoadRate float64 `json:"load_bytes_per_s"`
}

// Peaks is what the run with the model took, once it is closed.
func (l *LoadedModel) Peaks(files *llama.Files) *PeakJSON {
	p := &PeakJSON{HostPeak: bench.ReadProcessMemory().Peak, Weights: l.weights}
	if l.Took > 0 {
		p.LoadRate = float64(files.StoredBytes()) / l.Took.Seconds()
	}
	if l.peak > 0 {
		p.DevicePeak = &l.peak
	}
	return p
}
