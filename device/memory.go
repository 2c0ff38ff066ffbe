package device

import (
	"bytes"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/gomlx/compute"

	"github.com/kvqbook/kvqbook/internal/pjrt"
)

// Memory is a device's memory in bytes, as far as it can be told; 0: unknown.
type Memory struct {
	// what a program can have of it, what it has already included
	Limit  int64  `json:"limit_bytes"`
	InUse  int64  `json:"in_use_bytes"`         // what this process has of it now
	Peak   int64  `json:"peak_bytes,omitempty"` // what this process has had of it at most
	Source string `json:"source,omitempty"`     // where Limit comes from
}

// MemoryOf says how much memory a backend's device has. A device with an allocator of XLA's own
// (CUDA) is asked for its figures: its limit is XLA's, three quarters of the card unless XLA is
// told otherwise. A CPU shares the machine's memory, so its limit is what this process has plus
// what is available: MemAvailable of /proc/meminfo, or less where a control group allows less.
func MemoryOf(backend compute.Backend, device compute.DeviceNum) Memory {
	if a, err := allocatorOf(backend, device); err == nil && a.Limit > 0 {
		return Memory{Limit: a.Limit, InUse: a.InUse, Peak: a.Peak, Source: "XLA's allocator"}
	}
	if info := Describe(backend); info.Platform != "cpu" && info.Platform != PureGo {
		return Memory{}
	}
	return hostMemory("/")
}

// allocatorOf is what XLA's allocator says of a device's memory.
func allocatorOf(backend compute.Backend, device compute.DeviceNum) (pjrt.MemoryStats, error) {
	d, err := pjrt.Of(backend, device)
	if err != nil {
		return pjrt.MemoryStats{}, err
	}
	return d.MemoryStats()
}

// hostMemory reads the system's files below root.
func hostMemory(root string) Memory {
	m := Memory{InUse: procField(filepath.Join(root, "proc/self/status"), "VmRSS"), Peak: procField(filepath.Join(root, "proc/self/status"), "VmHWM")}
	available := procField(filepath.Join(root, "proc/meminfo"), "MemAvailable")
	if available == 0 {
		return m
	}
	m.Source = "MemAvailable of /proc/meminfo"
	if left, ok := groupLeft(root); ok && left < available {
		available, m.Source = left, "the control group's limit"
	}
	m.Limit = m.InUse + available
	return m
}

// procField reads a line such as "MemAvailable:   20971520 kB", in bytes; 0 where there is none.
func procField(file, name string) int64 {
	data, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(data) {
		if rest, ok := bytes.CutPrefix(line, []byte(name+":")); ok {
			if fields := strings.Fields(string(rest)); len(fields) == 2 && fields[1] == "kB" {
				n, _ := strconv.ParseInt(fields[0], 10, 64)
				return n << 10
			}
		}
	}
	return 0
}

// groupLeft is what the tightest control group around this process still allows (cgroup v2, else
// v1): its limit, less what it uses, files that can be dropped from memory not counted.
func groupLeft(root string) (left int64, ok bool) {
	data, err := os.ReadFile(filepath.Join(root, "proc/self/cgroup"))
	if err != nil {
		return 0, false
	}
	take := func(dir, limit, usage, reclaimable string) {
		most, known := number(filepath.Join(dir, limit))
		used, measured := number(filepath.Join(dir, usage))
		if !known || !measured {
			return
		}
		if rest := max(0, most-used+statField(filepath.Join(dir, "memory.stat"), reclaimable)); !ok || rest < left {
			left, ok = rest, true
		}
	}
	for line := range strings.Lines(string(data)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		// Inside of a container the path may be the host's; the group itself is then at the top.
		for group := path.Clean("/" + parts[2]); ; group = path.Dir(group) {
			switch {
			case parts[1] == "":
				take(filepath.Join(root, "sys/fs/cgroup", group), "memory.max", "memory.current", "inactive_file")
			case strings.Contains(","+parts[1]+",", ",memory,"):
				take(filepath.Join(root, "sys/fs/cgroup/memory", group), "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
			}
			if group == "/" {
				break
			}
		}
	}
	return left, ok
}

// number reads a file that holds one number; "max" is none.
func number(file string) (int64, bool) {
	data, err := os.ReadFile(file)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
	return n, err == nil
}

// statField reads a line such as "inactive_file 4096"; 0 where there is none.
func statField(file, name string) int64 {
	data, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			n, _ := strconv.ParseInt(strings.TrimSpace(rest), 10, 64)
			return n
		}
	}
	return 0
}
