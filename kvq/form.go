package kvq

import (
	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/kvqbook/kvqbook/internal/gpu"
	"github.com/kvqbook/kvqbook/kvq/internal/attend"
	"github.com/kvqbook/kvqbook/kvq/internal/codes"
	"github.com/kvqbook/kvqbook/kvq/internal/cpukernel"
)

// Form is a way to attend to codes. All forms give the same up to rounding; which one runs depends
// on the device, the codes and the number of tokens, and is chosen while a graph is built.
type Form = attend.Form

const (
	// Auto takes the fastest form that there is. It is the zero value.
	Auto = attend.Auto
	// Tiles unpacks codes tile by tile: any codes, any number of tokens, any device.
	Tiles = attend.Tiles
	// Words sums over the codes in their words, for single tokens; others get Tiles.
	Words = attend.Words
	// Kernel is a kernel for CUDA, and a function in C for a CPU, for single tokens. Where it
	// cannot run, Auto decides among the rest.
	Kernel = attend.Kernel
)

// WithForm returns a plan that attends in this form wherever it is possible: to compare forms, or
// to do without the kernel (Words). Auto is the way back.
func (p *Plan) WithForm(form Form) *Plan {
	q := *p
	q.form = form
	return &q
}

// Form returns the form in which single tokens attend to the codes of a cache, and the reason: why
// it is not the kernel, or what is assumed of the device; empty where there is nothing to tell.
// devices are among how many of a backend's devices XLA's partitioner shares the graph; 1 also
// where each of several has a graph of its own. Queries are taken to have the cache's dtype. Where
// layers differ, it is the slowest of their forms. A full-precision cache has no codes and gives
// Auto.
func (p *Plan) Form(backend compute.Backend, devices int) (form Form, reason string) {
	device, lacks := deviceOf(backend)
	return p.formOn(device, lacks, devices)
}

func (p *Plan) formOn(device gpu.Device, lacks string, devices int) (form Form, reason string) {
	for layer := range p.layers {
		f, why := attend.Choose(p.query(layer, device, lacks, devices, 1, p.shape.DType))
		if form == Auto || f < form { // from slow to fast
			form, reason = f, why
		}
	}
	return form, reason
}

// deviceOf describes a backend's first device. lacks says why graphs of a CPU cannot call the
// function in C; "" where they can, and for other devices.
func deviceOf(backend compute.Backend) (device gpu.Device, lacks string) {
	if device = gpu.Of(backend); device.Platform == "cpu" {
		lacks = cpukernel.Lacks(backend)
	}
	return device, lacks
}

// query is what the form of a layer depends on, for steps of so many tokens.
func (p *Plan) query(layer int, device gpu.Device, lacks string, devices, tokens int, queries dtypes.DType) attend.Query {
	l, s := p.layers[layer], p.shape
	q := attend.Query{Device: device, Devices: devices, Tokens: tokens, Key: l.key, Value: l.value, Queries: queries, Asked: p.form}
	if q.NoFunction = lacks; lacks == "" {
		q.NoFunction = cpukernel.Takes(l.key, l.value)
	}
	for _, f := range []codes.Format{l.key, l.value} {
		for _, a := range f.Arrays(s.Batch, s.KVHeads, p.codeSlots, s.DType) {
			q.Largest = max(q.Largest, a.Shape.Size())
		}
	}
	return q
}
