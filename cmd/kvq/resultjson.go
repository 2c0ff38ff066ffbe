package main

import (
	"fmt"
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
}

func newCacheJSON(config kvq.Config, r *llama.Result) *cacheJSON {
	if r == nil || r.Cache.Total() == 0 { // interrupted before there was one
		return nil
	}
	c := &cacheJSON{Config: config.String(), Bytes: r.Cache.Total(), FullBytes: r.FullCacheBytes, Parts: r.Cache}
	if len(r.DeviceCaches) > 1 {
		for _, m := range r.DeviceCaches {
			c.DeviceBytes = append(c.DeviceBytes, m.Total())
		}
	}
	return c
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
