package benchcmd

import (
	"maps"
	"slices"
	"strings"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/kvqbook/kvqbook/device"
	"github.com/kvqbook/kvqbook/internal/cli"
	"github.com/kvqbook/kvqbook/internal/engine"
	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/llama"
)

// randomModels are shapes of known models, for benchmarks with random weights. They allow far
// longer contexts than the models were made for.
var randomModels = map[string]llama.Config{
	"smollm2": {Architecture: "llama", VocabSize: 49152, HiddenSize: 576, IntermediateSize: 1536, Layers: 30, Heads: 9, KVHeads: 3,
		HeadDim: 64, RopeTheta: 100000, RMSNormEps: 1e-5, MaxPositions: 1 << 20, BOS: 1, EOS: []int{2}, TieEmbeddings: true},
	"llama2-7b": {Architecture: "llama", VocabSize: 32000, HiddenSize: 4096, IntermediateSize: 11008, Layers: 32, Heads: 32, KVHeads: 32,
		HeadDim: 128, RopeTheta: 10000, RMSNormEps: 1e-5, MaxPositions: 1 << 20, BOS: 1, EOS: []int{2}},
	"llama3-8b": {Architecture: "llama", VocabSize: 128256, HiddenSize: 4096, IntermediateSize: 14336, Layers: 32, Heads: 32, KVHeads: 8,
		HeadDim: 128, RopeTheta: 500000, RMSNormEps: 1e-5, MaxPositions: 1 << 20, BOS: 128000, EOS: []int{128001}},
}

func randomShapes() []string { return slices.Sorted(maps.Keys(randomModels)) }

func registerRandom(fs *pflag.FlagSet, random *string) {
	fs.StringVar(random, "random", "", "random weights in the `shape` of a model: "+strings.Join(randomShapes(), ", "))
	cli.OfferWords(fs, "random", randomShapes())
	cli.UnderModel(fs, "random")
}

// benchModel is the model of the flags, or one with random weights, on one device.
func (f *commonFlags) benchModel(c *cobra.Command, flags *cli.ModelFlags, random string) (*llama.Model, device.Info, string, func(), error) {
	if random == "" {
		files, err := flags.Open(c)
		if err != nil {
			return nil, device.Info{}, "", nil, err
		}
		m, err := flags.Load(c.Context(), files, c.ErrOrStderr())
		if err != nil {
			return nil, device.Info{}, "", nil, err
		}
		return m.Model, device.Describe(m.Backend()), "decode", func() { m.Close(c.Context()) }, nil
	}
	shape, err := randomModel(random)
	if err != nil {
		return nil, device.Info{}, "", nil, err
	}
	dtype, err := flags.ParseDType()
	if err != nil {
		return nil, device.Info{}, "", nil, err
	}
	backend, info, err := cli.OpenDevice(flags.Backend)
	if err != nil {
		return nil, info, "", nil, err
	}
	f.status.Stage("making random weights")
	m, err := newRandomModel(backend, info, shape, dtype, 1)
	f.status.Clear()
	if err != nil {
		return nil, info, "", nil, err
	}
	return m, info, "decode " + random, func() { m.Finalize(); backend.Finalize() }, nil
}

func randomModel(name string) (llama.Config, error) {
	shape, ok := randomModels[name]
	if !ok {
		return shape, usererr.New("--random %q, want %s", name, strings.Join(randomShapes(), ", "))
	}
	return shape, nil
}

// newRandomModel makes random weights on n devices. InvalidDType stands for what suits the device.
func newRandomModel(backend compute.Backend, info device.Info, shape llama.Config, dtype dtypes.DType, n int) (*llama.Model, error) {
	if dtype == dtypes.InvalidDType {
		dtype = dtypeOn(info)
	}
	m, err := engine.NewRandom(backend, shape, dtype, n, 1)
	if err != nil {
		return nil, err
	}
	return m.(*llama.Model), nil
}

// dtypeOn is what a user would keep a full-precision cache in on the device.
func dtypeOn(info device.Info) dtypes.DType {
	if info.GPU() {
		return dtypes.BFloat16
	}
	return dtypes.Float32
}
