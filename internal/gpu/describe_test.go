package gpu

import "testing"

// Devices made up of what plugins say.
func TestDescribe(t *testing.T) {
	nvidia := func(capability string, cores int64) map[string]any {
		return map[string]any{"compute_capability": capability, "core_count": cores, "device_vendor": "NVIDIA Corporation"}
	}
	for _, test := range []struct {
		platform, kind string
		attributes     map[string]any
		words          string
		want           Device
	}{
		{"cuda", "NVIDIA H100 80GB HBM3", nvidia("9.0", 132), "xla CudaDevice(id=0)", Device{"cuda", "NVIDIA H100 80GB HBM3", 9, 0, 132}},
		{"CUDA", "Tesla T4", nvidia("7.5", 40), "", Device{"cuda", "Tesla T4", 7, 5, 40}},
		{"cuda", "NVIDIA B200", nvidia("10.0", 148), "", Device{"cuda", "NVIDIA B200", 10, 0, 148}},
		{"cuda", "an old plugin", nil, "", Device{Platform: "cuda", Name: "an old plugin"}},
		{"cuda", "odd", map[string]any{"compute_capability": "new", "core_count": "many"}, "", Device{Platform: "cuda", Name: "odd"}},
		{"rocm", "AMD Instinct MI300X", nvidia("gfx942", 304), "", Device{Platform: "rocm", Name: "AMD Instinct MI300X", Processors: 304}},
		{"cpu", "cpu", nil, "xla TFRT_CPU_0 [processId=0]", Device{Platform: "cpu", Name: "cpu"}},
		{"", "", nil, "xla CUDA_0(process=0,(0))", Device{Platform: "cuda"}},
		{"", "", nil, "xla ROCM_0", Device{Platform: "rocm"}},
		{"", "", nil, "xla TFRT_GPU_0", Device{Platform: "gpu"}},
		{"tpu", "TPU v5", nil, "xla TPU_0", Device{Platform: "tpu", Name: "TPU v5"}},
		{"", "", nil, "Go Backend", Device{Platform: "go"}},
		{"", "", nil, "mine", Device{}},
	} {
		if got := describe(test.platform, test.kind, test.attributes, test.words); got != test.want {
			t.Errorf("describe(%q, %q, %v, %q) = %+v, want %+v", test.platform, test.kind, test.attributes, test.words, got, test.want)
		}
	}
}

func TestCompute(t *testing.T) {
	for _, test := range []struct {
		d            Device
		major, minor int
		want         bool
	}{
		{Device{Major: 9}, 8, 0, true},
		{Device{Major: 8}, 8, 0, true},
		{Device{Major: 8, Minor: 6}, 8, 9, false},
		{Device{Major: 7, Minor: 5}, 8, 0, false},
		{Device{Major: 10}, 8, 9, true},
		{Device{}, 0, 0, false},
	} {
		if got := test.d.Compute(test.major, test.minor); got != test.want {
			t.Errorf("%+v.Compute(%d, %d) = %v, want %v", test.d, test.major, test.minor, got, test.want)
		}
	}
}
