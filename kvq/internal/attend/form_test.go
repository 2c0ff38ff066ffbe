package attend_test

import (
	"math"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"

	"github.com/kvqbook/kvqbook/internal/gpu"
	. "github.com/kvqbook/kvqbook/kvq/internal/attend"
	"github.com/kvqbook/kvqbook/kvq/internal/codes"
	"github.com/kvqbook/kvqbook/kvq/internal/numbers"
)

var (
	cpu     = gpu.Device{Platform: "cpu"}
	h100    = gpu.Device{Platform: "cuda", Name: "NVIDIA H100 80GB HBM3", Major: 9, Processors: 132}
	a100    = gpu.Device{Platform: "cuda", Name: "NVIDIA A100-SXM4-40GB", Major: 8, Processors: 108}
	t4      = gpu.Device{Platform: "cuda", Name: "Tesla T4", Major: 7, Minor: 5, Processors: 40}
	amd     = gpu.Device{Platform: "rocm", Name: "AMD Instinct MI300X", Processors: 304}
	unknown = gpu.Device{Platform: "cuda"}
)

// both gives keys and values of a quantizer, in groups of channels.
func both(quantizer *numbers.Quantizer, bits, group, dim int) (key, value codes.Format) {
	of := func(keys bool) codes.Format {
		return codes.New(numbers.Spec{Quantizer: quantizer, Bits: bits, Keys: keys}, dim, group, false, false)
	}
	return of(true), of(false)
}

func TestChoose(t *testing.T) {
	query := func(change func(q *Query)) Query {
		q := Query{Device: h100, Devices: 1, Tokens: 1, Queries: dtypes.BFloat16}
		q.Key, q.Value = both(numbers.MinMax, 4, 32, 128)
		if change != nil {
			change(&q)
		}
		return q
	}
	bytes := func(q *Query) { q.Key, q.Value = both(numbers.Int8, 8, 128, 128) }
	// words hold codes of two groups
	split := func(q *Query) { q.Key, q.Value = both(numbers.MinMax, 3, 4, 128) }
	for _, c := range []struct {
		name   string
		change func(q *Query)
		want   Form
		reason string // a part of it
	}{
		{"packed codes on an H100", nil, Kernel, ""},
		{"on an A100, the oldest that has one", func(q *Query) { q.Device = a100 }, Kernel, ""},
		{"on a T4", func(q *Query) { q.Device = t4 }, Words, "compute capability 7.5, the kernel needs 8.0 or newer"},
		{"on a GPU that tells nothing", func(q *Query) { q.Device = unknown }, Kernel, "taken for an H100"},
		{"on AMD", func(q *Query) { q.Device = amd }, Words, "neither a CUDA device nor a CPU"},
		{"on nothing that is known", func(q *Query) { q.Device = gpu.Device{} }, Words, "neither a CUDA device nor a CPU"},
		{"on a CPU", func(q *Query) { q.Device = cpu }, Kernel, ""},
		{"on a CPU that lacks something", func(q *Query) { q.Device, q.NoFunction = cpu, "no vectors" }, Words, "no kernel on this CPU: no vectors"},
		{"on an H100, beside a CPU that lacks something", func(q *Query) { q.NoFunction = "no vectors" }, Kernel, ""},
		{"on two devices of a CPU", func(q *Query) { q.Device, q.Devices = cpu, 2 }, Words, "2 devices"},
		{"a mask of the step's own, on a CPU", func(q *Query) { q.Device, q.Masked = cpu, true }, Words, "a mask or a bias"},
		{"queries of float64, on a CPU", func(q *Query) { q.Device, q.Queries = cpu, dtypes.Float64 }, Words, "queries of float64"},
		{"values of another dimension, on a CPU", func(q *Query) { q.Device = cpu; _, q.Value = both(numbers.MinMax, 4, 32, 64) }, Kernel, ""},
		{"a head dimension of 16, on a CPU", func(q *Query) { q.Device = cpu; q.Key, q.Value = both(numbers.MinMax, 4, 16, 16) }, Kernel, ""},
		{"an array too large to count for CUDA, on a CPU", func(q *Query) { q.Device, q.Largest = cpu, math.MaxInt32+1 }, Kernel, ""},
		{"on two devices", func(q *Query) { q.Devices = 2 }, Words, "2 devices"},
		{"several tokens", func(q *Query) { q.Tokens = 2 }, Tiles, "several tokens"},
		{"several tokens, asked for words", func(q *Query) { q.Tokens, q.Asked = 2, Words }, Tiles, "several tokens"},

		{"a byte a code, on a CPU", func(q *Query) { bytes(q); q.Device = cpu }, Tiles, "not packed"},
		{"a byte a code, on a CPU, asked for words", func(q *Query) { bytes(q); q.Device, q.Asked = cpu, Words }, Words, "asked for"},
		{"a byte a code, on a CPU, asked for the kernel", func(q *Query) { bytes(q); q.Device, q.Asked = cpu, Kernel }, Tiles, "not packed"},
		{"a byte a code, on AMD", func(q *Query) { bytes(q); q.Device = amd }, Words, "neither a CUDA device nor a CPU"},
		{"a byte a code, on an H100", bytes, Words, "not packed"},

		{"words of two groups, on an H100", split, Tiles, "do not fill words"},
		{"words of two groups, on a CPU, asked for words", func(q *Query) { split(q); q.Device, q.Asked = cpu, Words }, Tiles, "asked for"},

		{"asked for words on an H100", func(q *Query) { q.Asked = Words }, Words, "asked for"},
		{"asked for words on a CPU", func(q *Query) { q.Device, q.Asked = cpu, Words }, Words, "asked for"},
		{"words of two groups, on a CPU", func(q *Query) { split(q); q.Device = cpu }, Tiles, "do not fill words"},
		{"asked for tiles on an H100", func(q *Query) { q.Asked = Tiles }, Tiles, "asked for"},
		{"asked for the kernel on an H100", func(q *Query) { q.Asked = Kernel }, Kernel, ""},
		{"asked for the kernel on a T4", func(q *Query) { q.Device, q.Asked = t4, Kernel }, Words, "compute capability 7.5"},

		{"a head dimension of no power of two", func(q *Query) { q.Key, q.Value = both(numbers.MinMax, 4, 32, 96) }, Kernel, ""},
		{"words of 16 bits", func(q *Query) { q.Key, q.Value = both(numbers.MinMax, 4, 20, 80) }, Kernel, ""},
		{"words with padding", func(q *Query) { q.Key, q.Value = both(numbers.MinMax, 5, 35, 35) }, Kernel, ""},
		{"groups that are too wide when padded", func(q *Query) { q.Key, q.Value = both(numbers.MinMax, 4, 48, 240) }, Words, "5 groups of 48 channels are 512"},
		{"a head dimension of 16", func(q *Query) { q.Key, q.Value = both(numbers.MinMax, 4, 16, 16) }, Words, "head dimension 16"},
		{"a head dimension of 512", func(q *Query) { q.Key, q.Value = both(numbers.MinMax, 4, 32, 512) }, Words, "head dimension 512"},
		{"queries of float64", func(q *Query) { q.Queries = dtypes.Float64 }, Words, "queries of float64"},
		{"values of another dimension", func(q *Query) { _, q.Value = both(numbers.MinMax, 4, 32, 64) }, Words, "values of 64 elements beside keys of 128"},
		{"a mask of the step's own", func(q *Query) { q.Masked = true }, Words, "a mask or a bias"},
		{"a mask of the step's own, asked for the kernel", func(q *Query) { q.Masked, q.Asked = true, Kernel }, Words, "a mask or a bias"},
		{"an array too large to count", func(q *Query) { q.Largest = math.MaxInt32 + 1 }, Words, "an array of 2147483648"},
	} {
		t.Run(c.name, func(t *testing.T) {
			form, reason := Choose(query(c.change))
			if form != c.want || !strings.Contains(strings.ToLower(reason), strings.ToLower(c.reason)) || (c.reason == "") != (reason == "") {
				t.Errorf("%s (%q), want %s (%q)", form, reason, c.want, c.reason)
			}
		})
	}
}
