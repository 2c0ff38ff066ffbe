package gpu_test

import (
	"testing"

	"github.com/kvqbook/kvqbook/device"
	"github.com/kvqbook/kvqbook/internal/gpu"
	"github.com/kvqbook/kvqbook/internal/pjrt"
	"github.com/kvqbook/kvqbook/internal/testbackend"
)

// Of the CPU, nothing of a GPU is made up.
func TestCPU(t *testing.T) {
	backend := testbackend.XLA(t)
	got := gpu.Of(backend)
	if got.Platform != "cpu" || got.GPU() || got.Major != 0 || got.Processors != 0 {
		t.Errorf("Of = %+v, want a CPU", got)
	}
	if again := gpu.Of(backend); again != got {
		t.Errorf("Of = %+v the second time, %+v before", again, got)
	}
}

// A backend that is finalized has no device any more, which is no reason to crash.
func TestFinalized(t *testing.T) {
	testbackend.XLA(t) // says why, where there is no plugin
	backend, err := device.Open(device.XLACPU)
	if err != nil {
		t.Fatal(err)
	}
	backend.Finalize()
	if _, err := pjrt.Of(backend, 0); err == nil {
		t.Error("pjrt.Of gave no error for a finalized backend")
	}
	if got := gpu.Of(backend); got.GPU() {
		t.Errorf("Of = %+v", got)
	}
}

func TestPureGo(t *testing.T) {
	if got := gpu.Of(testbackend.Go(t)); got != (gpu.Device{Platform: "go"}) {
		t.Errorf("Of the pure-Go backend = %+v", got)
	}
}

// On a GPU of NVIDIA every fact is known.
func TestCUDA(t *testing.T) {
	if !device.HasNVIDIA() {
		t.Skip("this machine shows no NVIDIA GPU")
	}
	backend, err := device.Open(device.XLACUDA)
	if err != nil {
		t.Skipf("CUDA does not open: %v", err)
	}
	defer backend.Finalize()
	got := gpu.Of(backend)
	t.Logf("%+v", got)
	if !got.CUDA() || !got.GPU() || got.Name == "" || got.Major < 3 || got.Processors < 1 {
		t.Errorf("Of = %+v, want all facts of a CUDA device", got)
	}
}

// Of is called while graphs are built.
func BenchmarkOf(b *testing.B) {
	backend := testbackend.XLA(b)
	for b.Loop() {
		gpu.Of(backend)
	}
}
