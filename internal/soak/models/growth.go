package models

import (
	"fmt"
	"runtime/debug"

	"github.com/gomlx/compute"

	"github.com/kvqbook/kvqbook/device"
	"github.com/kvqbook/kvqbook/internal/bench"
)

// sample is the memory of this process after so many tokens, or rounds, in bytes.
type sample struct {
	At       int   `json:"at"`
	Resident int64 `json:"resident"` // of the machine's memory
	Device   int64 `json:"device"`   // of the device's; on a CPU this is the machine's too
}

// measure takes a sample. What Go has no use for goes back to the machine first, so that it counts
// what is held and not when the collector last ran.
func measure(at int, b compute.Backend) sample {
	debug.FreeOSMemory()
	return sample{at, bench.ReadProcessMemory().Resident, device.MemoryOf(b, 0).InUse}
}

// mib is 2^20 bytes.
const mib = 1 << 20

// growth is the slope of the line with the least squared error through samples, in bytes for each
// unit of At, over the samples that are not warm-up: the last two thirds. It returns 0 where fewer
// than 3 are left.
func growth(list []sample, of func(sample) int64) float64 {
	list = list[len(list)/3:]
	if len(list) < 3 {
		return 0
	}
	var n, x, y, xx, xy float64
	for _, s := range list {
		a, b := float64(s.At-list[0].At), float64(of(s)-of(list[0]))
		n, x, y, xx, xy = n+1, x+a, y+b, xx+a*a, xy+a*b
	}
	if d := n*xx - x*x; d != 0 {
		return (n*xy - x*y) / d
	}
	return 0
}

// rule is how much memory may grow: bytes in a number of tokens. What grows by less than slack over
// all samples that count is an allocator's unevenness.
type rule struct {
	bytes, slack float64
	per          int
}

// judge says whether samples keep the rule, with the larger growth of host and device.
func (r rule) judge(list []sample) (ok bool, said string) {
	each := max(growth(list, func(s sample) int64 { return s.Resident }), growth(list, func(s sample) int64 { return s.Device }))
	all := each * float64(list[len(list)-1].At-list[len(list)/3].At)
	ok = each*float64(r.per) <= r.bytes || all <= r.slack
	return ok, fmt.Sprintf("%+.2f MiB in %d tokens", each*float64(r.per)/mib, r.per)
}
