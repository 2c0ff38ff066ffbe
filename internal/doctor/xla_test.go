package doctor

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/kvqbook/kvqbook/device"
	"github.com/kvqbook/kvqbook/internal/asset"
)

func TestCPU(t *testing.T) {
	m := surroundings(t)
	try := func(trial Trial) Finding {
		m.Try = func(_ context.Context, name string) Trial {
			if name != device.XLACPU {
				t.Errorf("tried %s", name)
			}
			return trial
		}
		return m.cpu(context.Background())
	}
	want(t, "no plugin", try(Trial{Error: "nothing is there", Missing: true}), Fails, "nothing is there. Cure: ./scripts/setup")
	want(t, "a damaged one", try(Trial{Error: "cut off"}), Fails, "cut off. Cure: rm -r .setup/plugins/cpu")
	t.Setenv(asset.EnvCPUPlugin, "/x.so")
	want(t, "a damaged one of a variable", try(Trial{Error: "cut off"}), Fails, "Cure: correct KVQ_PLUGIN_CPU")
	want(t, "a good one", try(Trial{Plugin: "/x.so", Version: "0.1", Took: 3e6}), OK, "/x.so, PJRT 0.1, ran a graph in 3ms")
}

// A graph runs on the pure-Go backend, and what cannot be opened says why.
func TestTry(t *testing.T) {
	surroundings(t)
	if trial := Try(device.PureGo); trial.Error != "" || len(trial.Devices) != 1 {
		t.Errorf("pure Go: %+v", trial)
	}
	if trial := Try(device.XLACPU); !trial.Missing || trial.Error == "" {
		t.Errorf("no plugin: %+v", trial)
	}
	if trial := Try("xla:" + put(t, filepath.Join(t.TempDir(), "plugin.so"), "no library", 0o644)); trial.Missing || trial.Error == "" {
		t.Errorf("no library: %+v", trial)
	}
}

func TestChosen(t *testing.T) {
	m := surroundings(t)
	want(t, "no variable", m.chosen(context.Background()), OK, device.XLACPU)
	t.Setenv(device.EnvDefault, "cuda")
	want(t, "a device that is not there", m.chosen(context.Background()), Fails, "KVQ_BACKEND=cuda: nothing is there. Cure: unset KVQ_BACKEND")
	m.Try = func(context.Context, string) Trial { return Trial{} }
	want(t, "a device that is there", m.chosen(context.Background()), OK, "xla:cuda, as KVQ_BACKEND says")
}

func TestGPU(t *testing.T) {
	m := surroundings(t)
	want(t, "none", m.gpu(context.Background()), Absent, "no NVIDIA GPU")
	m.HasGPU = func() bool { return true }
	for _, c := range []struct {
		what, driver string
		trial        Trial
		state        State
		says         string
	}{
		{"no plugin", "580.65.06", Trial{Missing: true}, Absent, "driver 580.65.06, and no CUDA plugin; models run on the CPU. Cure: ./scripts/setup --cuda"},
		{"neither driver nor plugin", "", Trial{Missing: true}, Absent, "driver of unknown version"},
		{"an old driver, no plugin", "535.183.01", Trial{Missing: true}, Absent, "too old for CUDA 13"},
		{"an old driver", "535.183.01", Trial{Error: "no device"}, Fails, "driver 535.183.01, want 580 or newer; no device. Cure: a driver of version 580"},
		{"no device", "590.1", Trial{Error: "no device"}, Fails, "driver 590.1: no device"},
		{"all there", "590.1", Trial{Devices: []string{"NVIDIA H100"}, Version: "0.1"}, OK, "NVIDIA H100, driver 590.1"},
	} {
		put(t, filepath.Join(m.System, "sys/module/nvidia/version"), c.driver+"\n", 0o644)
		m.Try = func(_ context.Context, name string) Trial {
			if name != device.XLACUDA {
				t.Errorf("tried %s", name)
			}
			return c.trial
		}
		want(t, c.what, m.gpu(context.Background()), c.state, c.says)
	}
}

// The driver's version stands in the kernel module's files, or WSL's nvidia-smi says it.
func TestDriver(t *testing.T) {
	m := surroundings(t)
	if got := m.driver(context.Background()); got != "" {
		t.Errorf("no driver: %q", got)
	}
	put(t, filepath.Join(m.System, "usr/lib/wsl/lib/nvidia-smi"), "#!/bin/sh\necho 581.29\n", 0o755)
	if got := m.driver(context.Background()); got != "581.29" {
		t.Errorf("WSL's: %q", got)
	}
	program(t, "nvidia-smi", "echo 570.1")
	if got := m.driver(context.Background()); got != "570.1" {
		t.Errorf("nvidia-smi's: %q", got)
	}
	put(t, filepath.Join(m.System, "proc/driver/nvidia/version"), "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun Jul 27\nGCC version:  gcc version 12.2.0\n", 0o644)
	if got := m.driver(context.Background()); got != "580.65.06" {
		t.Errorf("the module's: %q", got)
	}
}
