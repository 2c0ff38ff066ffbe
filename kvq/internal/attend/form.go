package attend

import (
	"fmt"
	"math"

	"github.com/gomlx/compute/dtypes"
	"github.com/kvqbook/kvqbook/internal/gpu"
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/kvq/internal/codes"
)

// Form is a way to attend to codes. All give the same up to rounding.
type Form int

const (
	Auto Form = iota // the fastest that there is: see [Choose]
	// codes are unpacked tile by tile: any codes, any number of tokens, any device
	Tiles
	Words  // sums over the codes in their words: single tokens
	Kernel // a kernel for CUDA, a function in C for a CPU: single tokens
)

func (f Form) String() string {
	switch f {
	case Tiles:
		return "tiles"
	case Words:
		return "words"
	case Kernel:
		return "kernel"
	}
	return "auto"
}

// Query is what the form depends on.
type Query struct {
	Device  gpu.Device
	Devices int // that share the graph
	Tokens  int // new tokens of a step

	Key, Value codes.Format
	Largest    int // elements of the largest array of codes, scales or zero points

	NoFunction string // why there is no function in C for it on a CPU; "": there is one

	Queries dtypes.DType // of queries
	Masked  bool         // the step has masks or a bias of its own
	Asked   Form         // Auto, or one to take where it is possible
}

// What the kernel needs.
const (
	KernelMajor, KernelMinor = gx.TritonMajor, gx.TritonMinor // CUDA's compute capability
	KernelMinDim             = 32                             // a program of its merge takes so many channels
	KernelMaxDim             = 256                            // more, with padding, do not fit the registers of a warp
)

// KernelLanes is how the kernel holds the channels of values: blocks of a GPU are powers of two, so
// groups and the channels of each are padded to these numbers.
func KernelLanes(value codes.Format) (groups, channels int) {
	groups = PowerOf2From(value.Groups())
	return groups, max(PowerOf2From(value.HeadDim/value.Groups()), KernelMinDim/groups)
}

// PowerOf2From is the least power of two from n on.
func PowerOf2From(n int) int {
	p := 1
	for p < n {
		p *= 2
	}
	return p
}

// Choose says which form runs, and why it is not the kernel, or what was assumed. It depends on
// nothing but q.
//
//	                           | several tokens | one token, CPU                    | one token, GPU | one token, one CUDA device
//	packed codes               | tiles          | kernel (a function in C)          | words          | kernel
//	  words of two groups      | tiles          | tiles                             | tiles          | tiles
//	a number for each code     | tiles          | tiles (words where asked for)     | words          | words
//
// On CUDA the kernel also needs compute capability 8.0, a head dimension from 32 to 256, with
// groups padded to powers of two too, and values of the keys' dimension. On a CPU it needs XLA's
// plugin, and a processor and a head dimension that the function is written for. Both need queries
// of float32, float16 or bfloat16, a graph of one device, and a step without masks of its own. What
// they do not take goes to the form of other GPUs, on a CPU too.
//
// Asked for tiles or words, single tokens get these, as far as they are possible; asked for the
// kernel, what they get without asking.
func Choose(q Query) (Form, string) {
	if q.Tokens > 1 {
		return Tiles, "several tokens at once"
	}
	switch q.Asked {
	case Tiles:
		return Tiles, "asked for"
	case Words:
		return q.graphForm(), "asked for"
	}
	if reason := q.noKernel(); reason != "" {
		return q.graphForm(), reason
	}
	if q.Device.CUDA() && (q.Device.Major == 0 || q.Device.Processors == 0) {
		return Kernel, "the GPU does not tell its compute capability or its processors: it is taken for an H100"
	}
	return Kernel, ""
}

// graphForm is Words where these are possible and fast, else Tiles.
func (q Query) graphForm() Form {
	for _, f := range []codes.Format{q.Key, q.Value} {
		switch {
		case f.Packed && !f.Words().Whole:
			return Tiles // codes of two groups in one word cannot be summed
		case !f.Packed && !q.Device.GPU() && q.Asked != Words:
			return Tiles // a CPU does not sum codes of a byte each well
		}
	}
	return Words
}

// noKernel says what keeps the kernel from running; "": nothing.
func (q Query) noKernel() string {
	d := q.Device
	switch {
	case !d.CUDA() && d.Platform != "cpu":
		return "neither a CUDA device nor a CPU"
	case q.Devices != 1:
		return fmt.Sprintf("%d devices share the graph, the kernel is for one", q.Devices)
	case q.Masked:
		return "a mask or a bias of the step's own, which the kernel does not read"
	case q.Queries != dtypes.Float32 && q.Queries != dtypes.Float16 && q.Queries != dtypes.BFloat16:
		return fmt.Sprintf("queries of %s, the kernel reads float32, float16 or bfloat16", q.Queries)
	}
	if d.CUDA() {
		if reason := q.noCUDA(); reason != "" {
			return reason
		}
	}
	for _, f := range []codes.Format{q.Key, q.Value} {
		switch {
		case !f.Packed:
			return "codes are not packed"
		case !f.Words().Whole:
			return fmt.Sprintf("codes of %d bits in groups of %d do not fill words", f.Bits, f.Group)
		}
	}
	if !d.CUDA() && q.NoFunction != "" {
		return "no kernel on this CPU: " + q.NoFunction
	}
	return ""
}

// noCUDA says what keeps the kernel from running on a CUDA device alone.
func (q Query) noCUDA() string {
	d := q.Device
	if d.Major > 0 && !d.Compute(KernelMajor, KernelMinor) {
		return fmt.Sprintf("compute capability %d.%d, the kernel needs %d.%d or newer", d.Major, d.Minor, KernelMajor, KernelMinor)
	}
	if q.Largest > math.MaxInt32 {
		return fmt.Sprintf("an array of %d elements, the kernel counts up to %d", q.Largest, math.MaxInt32)
	}
	k, v := q.Key.HeadDim, q.Value.HeadDim
	if k != v {
		return fmt.Sprintf("values of %d elements beside keys of %d, the kernel needs as many", v, k)
	}
	if k < KernelMinDim || k > KernelMaxDim {
		return fmt.Sprintf("head dimension %d, the kernel needs one from %d to %d", k, KernelMinDim, KernelMaxDim)
	}
	if groups, channels := KernelLanes(q.Value); groups*channels > KernelMaxDim {
		return fmt.Sprintf("%d groups of %d channels are %d when padded to powers of two, the kernel takes %d",
			q.Value.Groups(), q.Value.HeadDim/q.Value.Groups(), groups*channels, KernelMaxDim)
	}
	return ""
}
