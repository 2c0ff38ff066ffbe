package bench

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"strconv"
	"strings"
)

// ProcessMemory is what this process holds of the machine's memory, in bytes, as Linux counts it.
type ProcessMemory struct {
	Resident int64 `json:"resident_bytes"`
	Peak     int64 `json:"peak_bytes"` // since the process began, or since ResetPeak
}

// ReadProcessMemory reads VmRSS and VmHWM. Where there is no /proc, both are 0.
func ReadProcessMemory() ProcessMemory {
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return ProcessMemory{}
	}
	return parseStatus(data)
}

func parseStatus(data []byte) (m ProcessMemory) {
	for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); {
		fields := strings.Fields(lines.Text()) // VmHWM:  123456 kB
		if len(fields) < 2 {
			continue
		}
		kib, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil {
			continue
		}
		switch fields[0] {
		case "VmRSS:":
			m.Resident = kib << 10
		case "VmHWM:":
			m.Peak = kib << 10
		}
	}
	return m
}

// ResetPeak makes the peak begin anew from what is resident now. Where the kernel refuses, the peak
// stays that of the whole process.
func ResetPeak() { _ = os.WriteFile("/proc/self/clear_refs", []byte("5"), 0) }

// GPUMemory is the memory in use on the first NVIDIA GPU, in bytes, whoever uses it; 0 where
// nvidia-smi does not say.
func GPUMemory() int64 {
	out, err := exec.Command("nvidia-smi", "--id=0", "--query-gpu=memory.used", "--format=csv,noheader,nounits").Output()
	if err != nil {
		return 0
	}
	mib, err := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
	if err != nil {
		return 0
	}
	return mib << 20
}
