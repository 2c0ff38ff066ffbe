package kvq_test

import (
	"strings"
	"testing"

	"github.com/kvqbook/kvqbook/device"
	"github.com/kvqbook/kvqbook/internal/testbackend"
	"github.com/kvqbook/kvqbook/kvq"
)

func TestSupported(t *testing.T) {
	err := kvq.Supported(testbackend.Go(t))
	if err == nil || !strings.Contains(err.Error(), "DynamicSlice") || !strings.Contains(err.Error(), "need XLA") {
		t.Errorf("the pure-Go backend: %v, want an error that names what it lacks", err)
	}
	backend := testbackend.XLA(t)
	for range 2 {
		if err := kvq.Supported(backend); err != nil {
			t.Errorf("XLA: %v", err)
		}
	}
}

func TestSupportedOnCUDA(t *testing.T) {
	if !device.HasNVIDIA() {
		t.Skip("this machine shows no NVIDIA GPU")
	}
	backend, err := device.Open(device.XLACUDA)
	if err != nil {
		t.Skipf("CUDA does not open: %v", err)
	}
	defer backend.Finalize()
	if err := kvq.Supported(backend); err != nil {
		t.Error(err)
	}
}

func BenchmarkSupported(b *testing.B) {
	backend := testbackend.XLA(b)
	for b.Loop() {
		if err := kvq.Supported(backend); err != nil {
			b.Fatal(err)
		}
	}
}
