package llama

import (
	"context"
	"strings"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"

	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/llama/modelfile"
)

// Config describes a model, as its own files do.
type Config = modelfile.Config

// RopeScaling says how rotary frequencies are stretched.
type RopeScaling = modelfile.RopeScaling

// Files is a model on disk whose headers were read and checked. It holds no file open and no
// weights. Safe for concurrent use.
type Files struct{ *modelfile.Files }

// Open reads the headers of a model: a .gguf file, or a folder in Hugging Face's layout; see
// [modelfile.Open].
func Open(path string) (*Files, error) {
	f, err := modelfile.Open(path)
	if err != nil {
		return nil, err
	}
	return &Files{f}, nil
}

// LoadOptions say how a model is put on its devices. The zero value is what suits most: one device,
// and numbers and form of the weights by the kind of device.
type LoadOptions struct {
	// DType is the dtype of weights and activations: Float32, Float16 or BFloat16. InvalidDType
	// (the zero value) stands for Float32 on a CPU and Float16 on a GPU, as the tutorial loads its
	// model.
	DType dtypes.DType
	// Devices is over how many devices of the backend the model is sharded, the first so many: see
	// [Config.CheckDevices]. 0 is 1.
	Devices int
	// Weights is the form of the weights on the device.
	Weights WeightForm
	// RoundFloat16 rounds every weight to float16 before it is converted to DType: what a detour
	// over float16 files does to a GGUF's weights. Weights are plain then.
	RoundFloat16 bool
	// Calibration is the file of kvq calibrate that a cache with kvq.FeedbackCalibrated or
	// kvq.FeedbackMixed uses; "" is the one beside the model. It is read when a generator is made.
	Calibration string
	// Progress is called after each tensor with the bytes read so far and those of all weights, as
	// they are stored. Calls do not overlap. nil: nobody is told.
	Progress func(done, total int64)
	// Ready is called with the model before its weights are read: generators can be made of it, and
	// compile meanwhile ([Generator.Prepare]). Nothing else may be done with it before Load has
	// returned. An error ends the loading. nil: nobody is told.
	Ready func(*Model) error
	// Context ends the loading early, with its error, when it is done (Ctrl-C). nil: never.
	Context context.Context
}

// WeightForm is how weights lie on a device.
type WeightForm int

const (
	// AutoWeights is packed on one CPU with Float32, where the file allows it, else plain. On a GPU
	// products of 16-bit weights are faster.
	AutoWeights WeightForm = iota
	// PlainWeights are all numbers of LoadOptions.DType.
	PlainWeights
	// PackedWeights stay as a GGUF file packs them ([modelfile.Files.Packable]): values are exactly
	// those of plain ones in Float32, a step of the decode loop reads a quarter of the memory. Only
	// on one CPU, in Float32.
	PackedWeights
)

// Choose returns the options for a model with nothing left open: its number of devices, its dtype,
// and whether its weights are plain or packed. gpu says that the device has memory of its own. This
// is the one place that chooses. What cannot be is an error of one line.
func (o LoadOptions) Choose(f *Files, gpu bool) (LoadOptions, error) {
	if o.Devices == 0 {
		o.Devices = 1
	}
	if o.DType == dtypes.InvalidDType {
		o.DType = dtypes.Float32
		if gpu {
			o.DType = dtypes.Float16
		}
	}
	if o.Context == nil {
		o.Context = context.Background()
	}
	if o.Progress == nil {
		o.Progress = func(int64, int64) {}
	}
	if err := o.as().Validate(); err != nil {
		return o, err
	}
	if o.Weights == PlainWeights {
		return o, nil
	}
	cannot := o.cannotPack(f, gpu)
	switch {
	case cannot == nil:
		o.Weights = PackedWeights
	case o.Weights == PackedWeights:
		return o, cannot
	default:
		o.Weights = PlainWeights
	}
	return o, nil
}

// cannotPack says why weights cannot stay packed.
func (o LoadOptions) cannotPack(f *Files, gpu bool) error {
	switch {
	case o.Devices > 1:
		return usererr.New("packed weights are for one device, want plain ones on %d", o.Devices)
	case gpu:
		return usererr.New("packed weights are for CPUs, want plain ones on a GPU")
	case o.DType != dtypes.Float32:
		return usererr.New("packed weights compute in float32, not in %s", strings.ToLower(o.DType.String()))
	case o.RoundFloat16:
		return usererr.New("packed weights cannot be rounded to float16")
	}
	return f.Packable()
}

// as says what the elements of weights become.
func (o LoadOptions) as() modelfile.As {
	return modelfile.As{DType: o.DType, RoundFloat16: o.RoundFloat16}
}

// Load reads the weights and puts the model on the devices of a backend. Elements are converted
// while they are read, and each layer goes to its devices as soon as it is there: beside what stays
// on the devices, one layer exists twice at most. On an error, what was loaded is freed.
func (f *Files) Load(backend compute.Backend, options LoadOptions) (*Model, error) {
	o, err := options.Choose(f, !backend.HasSharedBuffers())
	if err != nil {
		return nil, err
	}
	m, err := newModel(backend, f.Config(), o.DType, o.Devices)
	if err != nil {
		return nil, err
	}
	m.packed, m.files, m.calibration = o.Weights == PackedWeights, f, o.Calibration
	if o.Ready != nil {
		err = o.Ready(m)
	}
	switch {
	case err != nil:
	case m.packed:
		err = m.loadPacked(f, o)
	default:
		err = m.load(f, o)
	}
	if err != nil {
		m.Finalize()
		return nil, err
	}
	return m, nil
}

// load reads plain weights: straight onto one device, or over the host to several.
func (m *Model) load(f *Files, o LoadOptions) error {
	l := loader{files: f, options: o}
	if m.on.n == 1 {
		l.backend = m.on.backend
	}
	total := f.StoredBytes()
	var done int64
	return m.place(l.tensors(), func(w modelfile.Weight) {
		done += f.StoredBytesOf(w)
		o.Progress(done, total)
	})
}
