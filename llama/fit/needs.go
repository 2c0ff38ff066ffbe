package fit

import (
	"github.com/gomlx/compute/dtypes"

	"github.com/kvqbook/kvqbook/internal/engine"
	"github.com/kvqbook/kvqbook/internal/gpu"
	"github.com/kvqbook/kvqbook/internal/kvqhook"
	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama"
)

// Needs is the memory that a generation takes on each device at most, in bytes. Weights and cache
// are exact, what a computation needs in passing is a prediction; [Request.Compile] asks XLA.
type Needs struct {
	Weights int64      `json:"weights"`
	Cache   kvq.Memory `json:"cache"`            // at its largest
	Beside  int64      `json:"beside,omitempty"` // a second cache and what is compared
	Work    int64      `json:"work"`             // at most at a time beside them
	// what needs so much work: "loading", "the prompt", "a step" or "growing the cache"
	For string `json:"for"`
}

// Total is all of it.
func (n Needs) Total() int64 { return n.Weights + n.Cache.Total() + n.Beside + n.Work }

// Needs predicts what the generation takes. widened says that the device multiplies 16-bit matrices
// as float32 (XLA's CPU), of which it then holds a copy. Bad input is [llama.ErrInput].
func (r Request) Needs(widened bool) (Needs, error) {
	if r.Batch < 1 || r.Prompt < 1 || r.NewTokens < 0 {
		return Needs{}, usererr.New("batch %d, prompt of %d, %d new tokens: want at least 1, 1 and 0", r.Batch, r.Prompt, r.NewTokens)
	}
	if err := r.Model.CheckDevices(r.devices()); err != nil {
		return Needs{}, err
	}
	one := r.ofOne()
	plans, err := one.plans()
	if err != nil {
		return Needs{}, err
	}
	c, size := one.Model, int64(r.DType.Size())
	last := plans[len(plans)-1].Memory()
	n := Needs{Cache: last, Weights: engine.WeightBytes(c, r.DType, r.Packed)}
	first := plans[0].Memory().Total()
	if r.Beside != nil {
		other := r
		other.Cache, other.Beside = *r.Beside, nil
		second, err := other.Needs(widened)
		if err != nil {
			return Needs{}, err
		}
		// the predictions that are compared
		n.Beside = second.Cache.Total() + one.logits()*engine.ScoreBlock
	}
	fused := r.Backend != nil && kvqhook.FusesPrompt(plans[0], r.Backend, c.Heads, one.columns())
	work := map[string]int64{
		"loading":    joinedElements(c)*size - last.Total(), // there is no cache yet
		"the prompt": first + one.promptWork(widened, fused, r.Backend != nil && !fused && gpu.Of(r.Backend).CUDA()) - last.Total(),
		"a step":     one.stepWork(widened),
	}
	if len(plans) > 1 {
		work["growing the cache"] = plans[len(plans)-2].Memory().Total()
	}
	for _, what := range []string{"loading", "the prompt", "a step", "growing the cache"} {
		if work[what] > n.Work {
			n.Work, n.For = work[what], what
		}
	}
	return n, nil
}

// joinedElements is the number of elements of a layer's tensors that are made of several weights:
// while they are joined, they are there twice.
func joinedElements(c llama.Config) (sum int64) {
	for _, t := range c.Tensors() {
		if t.Role.OfLayer() && t.Layer == 0 && len(t.Parts) > 1 {
			sum += t.Elements()
		}
	}
	return sum
}

// promptWork predicts the largest temporaries of the graph that takes the prompt in. Of a layer
// either its attention or its feed-forward part is alive, beside the residual stream x, and of the
// matrices a float32 copy where the device needs one:
//
//	feed-forward  tokens · (3·hidden + 3·intermediate)                                x, norm, sum; gate, up and their product
//	attention     tokens · (2·hidden + 2·(H + 2K)·D + H·D) + 2 · scores [B, H, q, T]  x, norm; heads before and after the rotation; output
//	fused         tokens · (2·hidden + 3·(H + 2K)·D + 2·H·D)                          the same; heads and output once more, moved past the padding
//
// On CUDA attention that is not fused has as many of them beside its scores, since kernels that run
// side by side share no memory (package device, sideBySide).
//
// The scores are float32, q is T up to 512 tokens and then 256 (package kvq, attendPrompt); a
// longer prompt never counts less. Fused attention keeps none. A quantizer that searches takes the
// prompt in pieces and stays below that (storeCodes). TestNeedsAgainstXLA, TestNeedsOnCUDA and
// TestPromptWorkIsOfOneLayer compare.
func (r Request) promptWork(widened, fused, cuda bool) int64 {
	c, columns := r.Model, int64(r.columns())
	tokens := int64(r.Batch) * columns
	size := int64(r.DType.Size())
	hidden, width, heads := int64(c.HiddenSize), int64(c.IntermediateSize), int64((c.Heads+2*c.KVHeads)*c.HeadDim)
	output := int64(c.Heads * c.HeadDim)
	feedForward := tokens * (3*hidden + 3*width) * size
	scores := max(min(columns, 512)*min(columns, 512), 256*columns)
	attention := tokens * (2*hidden + 2*heads + output) * size
	if fused || cuda {
		attention += tokens * (heads + output) * size
	}
	if !fused {
		attention += 2 * 4 * int64(r.Batch*c.Heads) * scores
	}
	// bfloat16 XLA's CPU compiler multiplies as it is where rows are many, as in a prompt.
	return max(feedForward, attention) + r.logits() + r.widenedBytes(widened && r.DType != dtypes.BFloat16) + r.unpackedBytes()
}

// stepWork predicts those of the decode loop: logits twice, what is unpacked of a cache at a time,
// and perhaps the float32 copy.
func (r Request) stepWork(widened bool) int64 {
	work := 2*r.logits() + r.widenedBytes(widened)
	if r.Cache.Quantized() {
		// Codes are summed as they are, or unpacked in tiles (package kvq, attendBlocks and
		// attendTiles): about a layer at the most.
		const tiles = 8 << 20
		layer := int64(r.Batch) * int64(r.Prompt+r.NewTokens) * int64(2*r.Model.KVHeads*r.Model.HeadDim) * 4
		work += min(layer, tiles)
	}
	return work
}

// logits are float32 [B, V].
func (r Request) logits() int64 { return 4 * int64(r.Batch) * int64(r.Model.VocabSize) }

// widenedBytes is the float32 copy of all matrices that multiply, the embedding only where it is
// the head too. XLA's CPU compiler takes the conversion out of the decode loop, so all are there at
// once.
func (r Request) widenedBytes(widened bool) int64 {
	if !widened || r.DType == dtypes.Float32 {
		return 0
	}
	sum := int64(r.Model.VocabSize) * int64(r.Model.HiddenSize)
	for _, t := range r.Model.Tensors() {
		if t.Role.OfLayer() && t.Matrix() {
			sum += t.Elements()
		}
	}
	return 4 * sum
}

// unpackedBytes is the float32 copy of a packed matrix that multiplies many tokens: of the largest.
func (r Request) unpackedBytes() int64 {
	if !r.Packed {
		return 0
	}
	var most int64
	for _, t := range r.Model.Tensors() {
		if t.Role.OfLayer() && t.Packs != "" {
			most = max(most, t.Elements())
		}
	}
	return 4 * most
}
