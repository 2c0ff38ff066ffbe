package doctor

import (
	"context"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/kvqbook/kvqbook/device"
)

// State is what was found of one thing.
type State string

// States.
const (
	OK     State = "ok"
	Fails  State = "fails"  // it is wanted and does not work
	Absent State = "absent" // it is not there, and what runs here runs without it
)

// Finding is what was found of one thing.
type Finding struct {
	Name  string `json:"name"`
	State State  `json:"state"`
	Found string `json:"found"`          // one line
	Cure  string `json:"cure,omitempty"` // what to do, in one line; "" where there is nothing to do
	// without it notebooks or the command do not run
	Needed bool `json:"needed"`
}

// ill is a finding that fails.
func ill(cure, format string, args ...any) Finding {
	return Finding{State: Fails, Found: fmt.Sprintf(format, args...), Cure: cure}
}

// missing is a finding of what is not there and need not be.
func missing(cure, format string, args ...any) Finding {
	return Finding{State: Absent, Found: fmt.Sprintf(format, args...), Cure: cure}
}

// well is a finding that is in order.
func well(format string, args ...any) Finding {
	return Finding{State: OK, Found: fmt.Sprintf(format, args...)}
}

// Machine is what is looked at. Here makes it; tests exchange what a test cannot have.
type Machine struct {
	Clone  string // the clone's folder, "" where there is none
	System string // the folder below which the system's files are: /proc and others
	// opens a device and runs a graph on it, in a process that may die of it
	Try func(ctx context.Context, name string) Trial
	// whether the machine shows an NVIDIA GPU
	HasGPU func() bool
	// what programs can have of the memory
	Memory func() device.Memory
}

// thing is one that is looked at.
type thing struct {
	name   string
	needed bool
	look   func(m *Machine, ctx context.Context) Finding
}

// things in the order in which they are told.
var things = []thing{
	{"C compiler", true, (*Machine).compiler},
	{"Go toolchain", true, (*Machine).toolchain},
	{"Python", true, (*Machine).python},
	{"Jupyter kernel", true, (*Machine).kernel},
	{"small model", true, (*Machine).model},
	{"XLA on the CPU", true, (*Machine).cpu},
	{"GPU", false, (*Machine).gpu},
	{"default device", true, (*Machine).chosen},
	{"memory", true, (*Machine).memory},
	{"disk", true, (*Machine).disk},
	{"temporary files", true, (*Machine).temporary},
	{"compiled graphs", false, (*Machine).compiled},
	{"hub", false, (*Machine).hub},
	{"proxy", false, (*Machine).proxy},
}

// longest is how long one thing may take.
const longest = 60 * time.Second

// Examine looks at everything, all of it at once, and yields what it found in a fixed order.
// waiting, unless nil, is told the name of what the next finding is about.
func (m *Machine) Examine(ctx context.Context, waiting func(name string)) iter.Seq[Finding] {
	return func(yield func(Finding) bool) {
		ctx, cancel := context.WithTimeout(ctx, longest)
		defer cancel()
		found := make([]chan Finding, len(things))
		for i, th := range things {
			found[i] = make(chan Finding, 1)
			go func() {
				f := th.look(m, ctx)
				f.Name, f.Needed = th.name, th.needed
				f.Found, f.Cure = oneLine(f.Found), oneLine(f.Cure)
				found[i] <- f
			}()
		}
		for i, th := range things {
			if waiting != nil {
				waiting(th.name)
			}
			if !yield(<-found[i]) {
				return
			}
		}
	}
}

// oneLine is s on one line, without characters that would act on a terminal.
func oneLine(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }), " ")
}
