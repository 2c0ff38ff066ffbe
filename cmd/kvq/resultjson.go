package main

import (
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama"
)

// cacheJSON is what a cache took.
type cacheJSON struct {
	Config       string      `json:"config"`
	Bytes        int64       `json:"bytes"` // on all devices together
	FullBytes    int64       `json:"full_precision_bytes"`
	DeviceBytes  []int64     `json:"bytes_per_device,omitempty"` // with several devices
	Parts        kvq.Memory  `json:"parts"`
	FullParts    *kvq.Memory `json:"full_precision_parts,omitempty"`
	BitsPerValue *float64    `json:"bits_per_value,omitempty"`
	Slots        int         `json:"slots,omitempty"`        // tokens of a row that there is room for
	Tokens       []int       `json:"tokens,omitempty"`       // of each row, padding apart
	CodedTokens  []int       `json:"coded_tokens,omitempty"` // of these; the others are exact
}

func newCacheJSON(config kvq.Config, b *batch, r *llama.Result) *cacheJSON {
	if r == nil || r.Cache.Total() == 0 { // interrupted before there was one
		return nil
	}
	c := &cacheJSON{Config: config.String(), Bytes: r.Cache.Total(), FullBytes: r.FullCacheBytes, Parts: r.Cache,
		Slots: r.Slots, CodedTokens: r.CodedTokens}
	if len(r.CodedTokens) > 0 {
		c.Tokens = cached(b, r)
	}
	if len(r.DeviceCaches) > 1 {
		for _, m := range r.DeviceCaches {
			c.DeviceBytes = append(c.DeviceBytes, m.Total())
		}
	}
	return c
}

// cached counts the tokens of each row that a generation's cache holds: the prompt and the new ones
// but the last, which did not go through the model.
func cached(b *batch, r *llama.Result) []int {
	counts := make([]int, len(b.IDs))
	for i := range counts {
		counts[i] = len(b.Row(i)) + max(len(r.Tokens[i])-1, 0)
	}
	return counts
}

// warnIfExact says so where a quantized cache has quantized nothing: its texts prove nothing then.
func warnIfExact(errs io.Writer, config kvq.Config, r *llama.Result) {
	if r == nil || !config.Quantized() || len(r.CodedTokens) == 0 || slices.Max(r.CodedTokens) > 0 {
		return
	}
	fmt.Fprintf(errs, "kvq: warning: no token is in codes yet, all are still exact (window of %d tokens, %d sinks): take a longer prompt or --max-new-tokens %d\n",
		config.ResidualLength, config.Sinks, 2*(config.ResidualLength+config.Sinks)+100)
}

// timingJSON is in seconds.
type timingJSON struct {
	Load            float64 `json:"load_s"`
	Compile         float64 `json:"compile_s"`
	Prefill         float64 `json:"prefill_s"`
	Decode          float64 `json:"decode_s"`
	TokensPerSecond float64 `json:"decode_tokens_per_s"` // of all rows together
}

func newTimingJSON(load time.Duration, t llama.Timing, rows int) timingJSON {
	return timingJSON{
		Load: load.Seconds(), Compile: t.Compile.Seconds(), Prefill: t.Prefill.Seconds(), Decode: t.Decode.Seconds(),
		TokensPerSecond: t.StepsPerSecond() * float64(rows),
	}
}

func (t timingJSON) String() string {
	return fmt.Sprintf("load %.1f s, compile %.1f s, prefill %.2f s, decode %.2f s (%.1f tokens/s)", t.Load, t.Compile, t.Prefill, t.Decode, t.TokensPerSecond)
}
