package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"time"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/kvqbook/kvqbook/device"
	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/llama"
	"github.com/kvqbook/kvqbook/llama/fit"
)

// ModelFlags say which model runs where.
type ModelFlags struct {
	Backend, model, dtype, Weights string
	revision                       string
	offline                        bool
	Devices                        int
	maxMemory                      string
	// Calibration is a file of kvq calibrate; "": the one beside the model
	Calibration string
	quiet       bool
	status      *Status
	// Ready is that of [llama.LoadOptions].
	Ready func(*llama.Model) error
}

// CalibrationFlag names a file that tells how a model's queries lie.
const CalibrationFlag = "calibration"

// Register adds the flags, without --devices.
func (f *ModelFlags) Register(fs *pflag.FlagSet) {
	RegisterBackend(fs, &f.Backend)
	f.RegisterFiles(fs)
	f.registerMaxMemory(fs)
	fs.StringVar(&f.dtype, "dtype", "auto", "float32, float16 or bfloat16, of weights and of what the cache keeps exact (auto: float32 on a CPU, float16 on a GPU)")
	fs.StringVar(&f.Weights, "weights", "auto", "packed as a GGUF file has them (Q4_1), or plain, all of --dtype (auto: packed on a CPU with float32 where the file allows it)")
	fs.StringVar(&f.Calibration, CalibrationFlag, "", "`file` of kvq calibrate, for --feedback-key calibrated and queries+calibrated (default: the one beside the model)")
	under(fs, cacheHeading, CalibrationFlag)
	RegisterQuiet(fs, &f.quiet)
	under(fs, modelHeading, "max-memory", "dtype", "weights")
}

// Status is where the command tells what it waits for, on errs. There is one; who began it closes
// it.
func (f *ModelFlags) Status(errs io.Writer) *Status {
	if f.status == nil {
		f.status = NewStatus(errs, f.quiet)
	}
	return f.status
}

// RegisterFiles adds the flags that name a model, for a command that reads its files alone.
func (f *ModelFlags) RegisterFiles(fs *pflag.FlagSet) {
	f.Devices, f.dtype, f.Weights = 1, "auto", "auto" // unless other flags say more
	fs.StringVarP(&f.model, "model", "m", "", "a .gguf `file`, a folder in Hugging Face's layout or a name of the hub (default: the small model of the set-up)")
	RegisterHub(fs, &f.revision, &f.offline)
	under(fs, modelHeading, "revision", "offline")
}

// Take is the model that came without a flag, if one did.
func (f *ModelFlags) Take(args []string) error {
	switch {
	case len(args) == 0:
		return nil
	case f.model != "":
		return usererr.New("%q beside --model: want one or the other", args[0])
	}
	f.model = args[0]
	return nil
}

// RegisterDevices is for commands that run one model.
func (f *ModelFlags) RegisterDevices(fs *pflag.FlagSet) {
	fs.IntVar(&f.Devices, "devices", 1, "shard the model over the first `n` devices of the backend, by key/value heads")
	under(fs, modelHeading, "devices")
}

// RegisterBackend adds --backend.
func RegisterBackend(fs *pflag.FlagSet, backend *string) {
	fs.StringVar(backend, "backend", "", "`device` to run on: xla:cpu, xla:cuda, go (no plugin, far slower) or xla:/path/to/plugin.so (default $"+device.EnvDefault+", else a GPU if there is one)")
}

// Open reads the headers of the model, and fetches it before where it is one of the hub.
func (f *ModelFlags) Open(c *cobra.Command) (*llama.Files, error) {
	if _, err := f.ParseDType(); err != nil {
		return nil, err
	}
	if _, err := f.ParseMaxMemory(); err != nil {
		return nil, err
	}
	if _, known := weightForms[f.Weights]; !known {
		return nil, usererr.New("--weights %q, want packed, plain or auto", f.Weights)
	}
	path, err := f.path(c)
	if err != nil {
		return nil, err
	}
	files, err := llama.Open(path)
	if err != nil {
		return nil, err
	}
	for _, line := range files.Warnings() {
		fmt.Fprintf(c.ErrOrStderr(), "kvq: warning: %s: %s\n", path, line)
	}
	return files, CheckShares(files.Config(), f.Devices)
}

// CheckShares tells whether so many devices can share a model.
func CheckShares(config llama.Config, devices int) error {
	if err := config.CheckDevices(devices); err != nil {
		return usererr.New("--devices %d: %w", devices, err)
	}
	return nil
}

// CheckCount tells whether a backend has so many devices.
func CheckCount(info device.Info, devices int) error {
	if has := len(info.Devices); devices > has {
		return usererr.New("--devices %d: %s has %d; kvq devices lists them", devices, info.Name, has)
	}
	return nil
}

// weightForms are the values of --weights.
var weightForms = map[string]llama.WeightForm{"auto": llama.AutoWeights, "packed": llama.PackedWeights, "plain": llama.PlainWeights}

// loadOptions are those of the flags, for so many devices.
func (f *ModelFlags) loadOptions(devices int) llama.LoadOptions {
	dtype, _ := f.ParseDType() // checked by Open
	return llama.LoadOptions{DType: dtype, Devices: devices, Weights: weightForms[f.Weights]}
}

// Packs tells whether weights stay packed.
func (f *ModelFlags) Packs(files *llama.Files, gpu bool, devices int) (bool, error) {
	o, err := f.loadOptions(devices).Choose(files, gpu)
	if err != nil && f.Weights == "packed" {
		err = usererr.New("--weights packed: %w", err)
	}
	return o.Weights == llama.PackedWeights, err
}

// ParseDType returns the dtype asked for, InvalidDType for auto.
func (f *ModelFlags) ParseDType() (dtypes.DType, error) {
	switch f.dtype {
	case "auto":
		return dtypes.InvalidDType, nil
	case "float32", "fp32", "f32":
		return dtypes.Float32, nil
	case "float16", "fp16", "f16", "half":
		return dtypes.Float16, nil
	case "bfloat16", "bf16":
		return dtypes.BFloat16, nil
	}
	return dtypes.InvalidDType, usererr.New("--dtype %q, want float32, float16, bfloat16 or auto", f.dtype)
}

// DTypeOn is the dtype asked for, on a device.
func (f *ModelFlags) DTypeOn(gpu bool) dtypes.DType {
	dtype, _ := f.ParseDType() // checked by open
	switch {
	case dtype != dtypes.InvalidDType:
		return dtype
	case gpu:
		return dtypes.Float16 // as the tutorial loads its model
	}
	return dtypes.Float32
}

// GPUAhead tells by its name whether the device that will be opened is a GPU.
func (f *ModelFlags) GPUAhead() bool {
	return cmp.Or(f.Backend, device.Default()) == device.XLACUDA
}

// NoteNotKept says why graphs that XLA compiles are not kept, where that is so.
func NoteNotKept(errs io.Writer) {
	if err := device.NotKept(); err != nil {
		fmt.Fprintf(errs, "kvq: note: %v\n", err)
	}
}

// OpenDevice opens a device.
func OpenDevice(name string) (compute.Backend, device.Info, error) {
	backend, err := device.Open(name)
	if err != nil {
		return nil, device.Info{}, err
	}
	return backend, device.Describe(backend), nil
}

// LoadedModel is a model on its device.
type LoadedModel struct {
	*llama.Model
	backend compute.Backend
	Device  string
	Devices []string // those it is sharded over, as XLA describes them
	GPU     bool
	Room    Room // that there was before anything was loaded; zero: not known
	Took    time.Duration
	weights int64 // bytes on all devices together
	// the first device's memory at its fullest; 0: unknown, or the host's. Set by close
	peak int64
}

// Load opens the device and loads the weights, if what is going to run fits.
func (f *ModelFlags) Load(ctx context.Context, files *llama.Files, errs io.Writer, runs ...fit.Request) (*LoadedModel, error) {
	start := time.Now()
	status := f.Status(errs)
	status.Stage("opening the device")
	backend, info, err := OpenDevice(f.Backend)
	status.Clear()
	if err != nil {
		return nil, err
	}
	NoteNotKept(errs)
	if err := CheckCount(info, f.Devices); err != nil {
		return nil, err
	}
	packed, err := f.Packs(files, info.GPU(), f.Devices)
	if err != nil {
		return nil, err
	}
	for i := range runs {
		runs[i].Packed = packed
		if runs[i].Cache.FeedbackKey.NeedsCalibration() { // so that it is missed before the weights are read
			if _, err := files.Calibration(f.Calibration); err != nil {
				return nil, err
			}
		}
	}
	if err := f.CheckFit(backend, info, runs...); err != nil {
		return nil, err
	}
	room, err := f.Room(backend, files.Config().Layers)
	if err != nil {
		return nil, err
	}
	model, err := f.LoadOn(ctx, backend, info, f.Devices, files, errs)
	if err != nil {
		return nil, err
	}
	return &LoadedModel{Model: model, backend: backend, Device: info.Name, GPU: info.GPU(), Room: room, Devices: info.Devices[:f.Devices], Took: time.Since(start), weights: model.Bytes()}, nil
}

// LoadOn loads the weights onto the first n devices of a backend.
func (f *ModelFlags) LoadOn(ctx context.Context, backend compute.Backend, info device.Info, n int, files *llama.Files, errs io.Writer) (*llama.Model, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	options := f.loadOptions(n)
	options.Context, options.Ready, options.Calibration = ctx, f.Ready, f.Calibration
	status := f.Status(errs)
	status.Stage("loading the model")
	defer status.Clear()
	options.Progress = func(done, all int64) { status.Detail("%d %% of %s", 100*done/max(all, 1), InUnits(all)) }
	return files.Load(backend, options)
}

// Close frees model and device at the end of a command: see [FinalizeLast].
func (l *LoadedModel) Close(ctx context.Context) {
	if ctx.Err() == nil && device.Describe(l.backend).GPU() {
		l.peak = device.MemoryOf(l.backend, 0).Peak
	}
	FinalizeLast(ctx, l.Finalize, l.backend.Finalize)
}
