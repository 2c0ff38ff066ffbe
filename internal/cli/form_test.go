package cli

import (
	"testing"

	"github.com/kvqbook/kvqbook/internal/gpu"
	"github.com/kvqbook/kvqbook/kvq"
)

// A line for a GPU of NVIDIA or a CPU that gets no kernel, or whose facts had to be assumed; for
// nothing else.
func TestFormLine(t *testing.T) {
	t4 := gpu.Device{Platform: "cuda", Name: "Tesla T4", Major: 7, Minor: 5, Processors: 40}
	for _, c := range []struct {
		device gpu.Device
		form   kvq.Form
		reason string
		want   string
	}{
		{t4, kvq.Words, "compute capability 7.5, the kernel needs 8.0 or newer",
			"kvq: note: Tesla T4 attends to codes by graph operations (words), not by the kernel: compute capability 7.5, the kernel needs 8.0 or newer"},
		{gpu.Device{Platform: "cuda"}, kvq.Kernel, "it is taken for an H100", "kvq: note: the GPU: it is taken for an H100"},
		{t4, kvq.Kernel, "", ""},
		{t4, kvq.Auto, "", ""}, // full precision
		{gpu.Device{Platform: "cpu", Name: "cpu"}, kvq.Words, "no kernel on this CPU: no vectors",
			"kvq: note: the CPU attends to codes by graph operations (words), not by the kernel: no kernel on this CPU: no vectors"},
		{gpu.Device{Platform: "cpu"}, kvq.Tiles, "codes are not packed", ""},
		{gpu.Device{Platform: "cpu"}, kvq.Kernel, "", ""},
		{gpu.Device{Platform: "rocm"}, kvq.Words, "neither a CUDA device nor a CPU", ""},
	} {
		if got := formLine(c.device, c.form, c.reason); got != c.want {
			t.Errorf("%+v, %s: %q, want %q", c.device, c.form, got, c.want)
		}
	}
}
