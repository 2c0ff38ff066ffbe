package cli

import (
	"fmt"
	"io"

	"github.com/kvqbook/kvqbook/internal/gpu"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama"
)

// NoteForm says in one line on errs why a GPU of NVIDIA, or a CPU, attends to this cache's codes
// without the kernel that is made for it, or what had to be assumed of it. There is nothing to say
// on other devices, nor where no kernel is made for such codes on a CPU.
func NoteForm(errs io.Writer, model *llama.Model, cache kvq.Config) {
	c := model.Config().Share(model.Devices())
	plan, err := kvq.New(cache, kvq.Shape{
		Layers: c.Layers, Batch: 1, KVHeads: c.KVHeads, HeadDim: c.HeadDim, Capacity: 128, DType: model.DType(),
	})
	if err != nil {
		return // whoever uses this cache says so
	}
	form, reason := plan.Form(model.Backend(), 1)
	if line := formLine(gpu.Of(model.Backend()), form, reason); line != "" {
		fmt.Fprintln(errs, line)
	}
}

// formLine is the line of NoteForm; "" for none.
func formLine(device gpu.Device, form kvq.Form, reason string) string {
	cpu := device.Platform == "cpu" && form == kvq.Words // what Auto takes for want of the kernel alone
	if !device.CUDA() && !cpu || reason == "" {
		return ""
	}
	name := device.Name
	switch {
	case cpu:
		name = "the CPU"
	case name == "":
		name = "the GPU"
	}
	if form == kvq.Kernel {
		return fmt.Sprintf("kvq: note: %s: %s", name, reason)
	}
	return fmt.Sprintf("kvq: note: %s attends to codes by graph operations (%s), not by the kernel: %s", name, form, reason)
}
