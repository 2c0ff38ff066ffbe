package kvq

import (
	"fmt"

	"github.com/gomlx/compute/shapes"
	"github.com/kvqbook/kvqbook/internal/gpu"
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/kvq/internal/codes"
)

// What the tests outside of the package look at apart.
const (
	FileVersion  = fileVersion
	FileVersion3 = fileVersion3
)

var (
	ReadCache   = readCache
	StoreCodes  = storeCodes
	PromptPiece = promptPiece

	ShortMetric = shortMetric

	CreateTemporary = createTemporary
	CheckState      = (*Plan).checkState
)

// Updating makes a session believe that another goroutine's call is under way, or not.
func (s *Session) Updating(is bool) { s.updating.Store(is) }

// Needs is what each compiled graph of a session takes of the device's memory, by XLA's figures.
func (s *Session) Needs() (map[string]gx.Compiled, error) {
	all := map[string]gx.Compiled{}
	for key, g := range s.runner.programs.All() {
		if g.needsErr != nil {
			return nil, g.needsErr
		}
		all[fmt.Sprintf("%#v", key)] = g.needs
	}
	return all, nil
}

// StateArray is an array of the state by its name.
type StateArray struct {
	Name  string
	Shape shapes.Shape
}

// Arrays lists the state, in the order of [Cache.Nodes].
func (p *Plan) Arrays() []StateArray {
	var list []StateArray
	for _, a := range p.arrays() {
		list = append(list, StateArray{a.name, a.shape})
	}
	return list
}

// Inside is what a plan has worked out, in tokens.
type Inside struct {
	Sinks, Block, Unit, FlushSlots, CodeSlots, ExactSlots int
	Layers                                                []LayerFormats
}

// LayerFormats is how a layer is coded.
type LayerFormats struct{ Key, Value codes.Format }

// Inside tells it for a quantized cache.
func (p *Plan) Inside() Inside {
	in := Inside{Sinks: p.sinks, Block: p.block, Unit: p.unit, FlushSlots: p.flushSlots, CodeSlots: p.codeSlots, ExactSlots: p.exactSlots()}
	for _, l := range p.layers {
		in.Layers = append(in.Layers, LayerFormats{l.key, l.value})
	}
	return in
}

// FormOn is [Plan.Form] on a device that may be made up; on a CPU, where programs can call the
// function in C.
func (p *Plan) FormOn(device gpu.Device, devices int) (Form, string) {
	return p.formOn(device, "", devices)
}
