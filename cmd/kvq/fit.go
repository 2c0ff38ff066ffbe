package main

import (
	"fmt"
	"math"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/spf13/pflag"

	"github.com/kvqbook/kvqbook/device"
	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama"
)

// registerMaxMemory is for commands that say or check what fits.
func (f *modelFlags) registerMaxMemory(fs *pflag.FlagSet) {
	fs.StringVar(&f.maxMemory, "max-memory", "", "`size` such as 16GiB that weights, cache and work may take on each device (default: what the device has)")
}

// parseMaxMemory returns the size asked for, 0 for none.
func (f *modelFlags) parseMaxMemory() (int64, error) {
	if f.maxMemory == "" {
		return 0, nil
	}
	limit, err := humanize.ParseBytes(f.maxMemory)
	if err != nil || limit == 0 || limit > math.MaxInt64 {
		return 0, usererr.New("--max-memory %q, want a size such as 16GiB or 800MB", f.maxMemory)
	}
	return int64(limit), nil
}

// room is how much memory there is for a run on each device; 0: not known.
type room struct {
	Bytes  int64  `json:"bytes"`
	Source string `json:"source"`
}

// room asks the user's flag, else the device.
func (f *modelFlags) room(backend compute.Backend) (room, error) {
	limit, err := f.parseMaxMemory()
	if err != nil || limit > 0 {
		return room{limit, "--max-memory"}, err
	}
	m := device.MemoryOf(backend, 0)
	for n := 1; n < f.devices; n++ {
		if other := device.MemoryOf(backend, compute.DeviceNum(n)); other.Limit-other.InUse < m.Limit-m.InUse {
			m = other
		}
	}
	if m.Limit == 0 {
		return room{}, nil
	}
	left := m.Limit - m.InUse
	if info := device.Describe(backend); !info.GPU() {
		left /= int64(max(1, f.devices)) // XLA's devices on a CPU share the machine's memory
	}
	return room{left, m.Source}, nil
}

// widens tells whether a device multiplies 16-bit matrices as float32.
func widens(info device.Info) bool { return !info.GPU() }

// checkFit refuses runs that cannot fit the device, in one line, before anything is loaded. Several are there one after the other.
func (f *modelFlags) checkFit(backend compute.Backend, info device.Info, runs ...llama.Request) error {
	there, err := f.room(backend)
	if err != nil || there.Bytes == 0 {
		return err
	}
	for _, r := range runs {
		r.Devices = f.devices
		if r.DType == dtypes.InvalidDType {
			r.DType = f.dtypeOn(info.GPU())
		}
		n, err := r.Needs(widens(info))
		if err != nil {
			return err
		}
		if n.Total() > there.Bytes {
			return usererr.New("the run does not fit: weights %s, cache %s and work %s are %s, %s has %s (%s); %s", inUnits(n.Weights), inUnits(n.Cache.Total()+n.Beside),
				inUnits(n.Work), inUnits(n.Total()), info.Name, inUnits(there.Bytes), there.Source, advice(r, there.Bytes, widens(info)))
		}
	}
	return nil
}

func inUnits(bytes int64) string { return humanize.IBytes(uint64(bytes)) }

// advice says what would fit instead.
func advice(r llama.Request, limit int64, widened bool) string {
	fits := func(r llama.Request) bool {
		n, err := r.Needs(widened)
		return err == nil && n.Total() <= limit
	}
	smallest := r
	smallest.Batch, smallest.Prompt, smallest.NewTokens = 1, 1, 1
	if !fits(smallest) {
		return "not even one token would fit: take --devices, a 16-bit --dtype on a GPU, or a smaller model"
	}
	var list []string
	for _, name := range kvq.Presets() {
		other := r
		if config, err := kvq.Preset(name); err == nil {
			if other.Cache = config; fits(other) {
				list = append(list, "--preset "+name)
				break
			}
		}
	}
	if n := mostThatFits(r.Batch, func(n int) bool { o := r; o.Batch = n; return fits(o) }); n > 0 {
		list = append(list, fmt.Sprintf("a batch of %d", n))
	}
	if n := mostThatFits(r.NewTokens, func(n int) bool { o := r; o.NewTokens = n; return fits(o) }); n > 0 {
		list = append(list, fmt.Sprintf("%d new tokens", n))
	}
	if len(list) == 0 {
		return "a shorter prompt would fit; kvq memory tells what does"
	}
	return "this fits: " + strings.Join(list, ", or ")
}

// mostThatFits is the largest number up to most that fits, 0 if none does. What fits once fits for all smaller ones.
func mostThatFits(most int, fits func(int) bool) int {
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

// peakJSON is the most memory that a run took, in bytes, and how fast the weights came.
type peakJSON struct {
	HostPeak   int64   `json:"host_peak_bytes"`             // of the process: resident pages
	DevicePeak *int64  `json:"device_peak_bytes,omitempty"` // of the first device; absent where it uses the host's memory
	Weights    int64   `json:"weights_bytes"`               // on all devices together
	LoadRate   float64 `json:"load_bytes_per_s"`            // of the files, opening the device included
}

func (l *loaded) peaks(files *llama.Files) *peakJSON {
	p := &peakJSON{HostPeak: device.HostPeak(), Weights: l.weights}
	if l.took > 0 {
		p.LoadRate = float64(files.StoredBytes()) / l.took.Seconds()
	}
	if l.peak > 0 {
		p.DevicePeak = &l.peak
	}
	return p
}
