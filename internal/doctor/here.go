package doctor

import (
	"github.com/kvqbook/kvqbook/device"
	"github.com/kvqbook/kvqbook/internal/asset"
)

// Setup is the command that mends most.
const setup = "./scripts/setup"

// Here is the machine that this program runs on. The clone is the one that asset.Root finds.
func Here() *Machine {
	root, err := asset.Root()
	if err != nil {
		root = ""
	}
	return &Machine{Clone: root, System: "/", Try: tryElsewhere, HasGPU: device.HasNVIDIA, Memory: hostMemory}
}

// hostMemory is what the pure-Go backend is told, which opens without a plugin.
func hostMemory() device.Memory {
	backend, err := device.Open(device.PureGo)
	if err != nil {
		return device.Memory{}
	}
	defer backend.Finalize()
	return device.MemoryOf(backend, 0)
}

// noClone says why nothing can be said of what lies in a clone.
func noClone(what string) Finding {
	return missing("change into the clone, or set "+asset.EnvRoot+" to it", "no clone here, so no %s of one", what)
}
