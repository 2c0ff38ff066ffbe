package doctor

import (
	"cmp"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/kvqbook/kvqbook/device"
	"github.com/kvqbook/kvqbook/internal/asset"
)

// cpu opens XLA's CPU plugin.
func (m *Machine) cpu(ctx context.Context) Finding {
	cure := "rm -r " + filepath.Join(asset.SetupDir, "plugins", "cpu") + " in the clone, then " + setup
	if os.Getenv(asset.EnvCPUPlugin) != "" {
		cure = "correct " + asset.EnvCPUPlugin + ", or unset it"
	}
	t := m.Try(ctx, device.XLACPU)
	switch {
	case t.Missing && os.Getenv(asset.EnvCPUPlugin) == "":
		return ill(setup, "%s", t.Error)
	case t.Error != "":
		return ill(cure+"; --backend go runs without it, slowly", "%s", t.Error)
	}
	return well("%s, PJRT %s, ran a graph in %s", t.Plugin, t.Version, t.Took.Round(time.Millisecond))
}

// chosen is the device that runs without --backend. Only a variable makes it one that cannot run.
func (m *Machine) chosen(ctx context.Context) Finding {
	name := device.Default()
	if os.Getenv(device.EnvDefault) == "" {
		return well("%s", name)
	}
	if t := m.Try(ctx, name); t.Error != "" {
		return ill("unset "+device.EnvDefault+", or correct it", "%s=%s: %s", device.EnvDefault, os.Getenv(device.EnvDefault), t.Error)
	}
	return well("%s, as %s says", name, device.EnvDefault)
}

// oldestDriver is the first one of CUDA 13.
const oldestDriver = 580

// gpu looks at the GPU, its driver and XLA's CUDA plugin. A machine without a GPU lacks nothing.
func (m *Machine) gpu(ctx context.Context) Finding {
	if !m.HasGPU() {
		return missing("", "no NVIDIA GPU; models run on the CPU")
	}
	driver := m.driver(ctx)
	said := "driver " + cmp.Or(driver, "of unknown version")
	major, _, _ := strings.Cut(driver, ".")
	n, err := strconv.Atoi(major)
	old := err == nil && n < oldestDriver
	t := m.Try(ctx, device.XLACUDA)
	renew := "a driver of version " + strconv.Itoa(oldestDriver) + " or newer; until then --backend cpu"
	switch {
	case t.Missing && old:
		return missing(renew+", and "+setup+" --cuda", "an NVIDIA GPU with %s, which is too old for CUDA 13, and no CUDA plugin", said)
	case t.Missing:
		return missing(setup+" --cuda (3 GB)", "an NVIDIA GPU with %s, and no CUDA plugin; models run on the CPU", said)
	case old:
		return ill(renew, "%s, want %d or newer; %s", said, oldestDriver, cmp.Or(t.Error, "a graph ran all the same"))
	case t.Error != "":
		return ill(renew+"; else "+setup+" --cuda anew", "%s: %s", said, t.Error)
	}
	return well("%s, %s, %s, PJRT %s, ran a graph in %s", strings.Join(t.Devices, "; "), said, t.Plugin, t.Version, t.Took.Round(time.Millisecond))
}

var driverVersion = regexp.MustCompile(`\b\d{3,4}\.\d+(\.\d+)?\b`)

// driver is the version of NVIDIA's driver: the kernel module's, else as nvidia-smi says it, which
// WSL has alone; "" where neither says it.
func (m *Machine) driver(ctx context.Context) string {
	for _, file := range []string{"sys/module/nvidia/version", "proc/driver/nvidia/version"} {
		if data, err := os.ReadFile(filepath.Join(m.System, file)); err == nil {
			if v := driverVersion.FindString(string(data)); v != "" {
				return v
			}
		}
	}
	for _, smi := range []string{"nvidia-smi", filepath.Join(m.System, "usr/lib/wsl/lib/nvidia-smi")} {
		if out, err := exec.CommandContext(ctx, smi, "--query-gpu=driver_version", "--format=csv,noheader").Output(); err == nil {
			if v := driverVersion.FindString(string(out)); v != "" {
				return v
			}
		}
	}
	return ""
}
