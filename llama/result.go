package llama

import (
	"time"

	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// Result is what a generation gave, also when it ended early.
type Result struct {
	// Tokens are the new tokens of each row [B][n], all of one length as in transformers: a row
	// that ended before the others is filled up with the padding token.
	Tokens [][]tokenizer.Token
	// Lengths says how many of them are the row's own, its end-of-sequence token included, or the
	// one that completes a stop string.
	Lengths []int
	// Stop says why the generation ended; "" while it goes on.
	Stop StopReason
	// Logits [n][B][V] are those that the tokens were picked from, before any processing; nil
	// without KeepLogits.
	Logits [][][]float32
	// Cache is what the cache took at the end, by part, on all devices together; FullCacheBytes
	// what a full-precision one with the same number of slots would have taken. DeviceCaches is
	// what it took on each device.
	Cache          kvq.Memory
	FullCacheBytes int64
	DeviceCaches   []kvq.Memory
	// Slots is how many tokens of a row that cache has room for, padding included.
	Slots int
	// CodedTokens is how many tokens of each row [B] the cache keeps as codes, once the generation
	// is over. As long as it is 0 a quantized cache is exact.
	CodedTokens []int
	// Kept is how many tokens of the prompt the row of a [Batch] held before; 0 elsewhere.
	Kept   int
	Timing Timing
}

// Row returns the tokens of row i without padding.
func (r *Result) Row(i int) []tokenizer.Token { return r.Tokens[i][:r.Lengths[i]] }

// StopReason says why a generation ended.
type StopReason string

// Reasons to stop.
const (
	StopEOS    StopReason = "eos"    // every row ended with an end-of-sequence token
	StopString StopReason = "stop"   // likewise, one of them at least at one of StopStrings
	StopLength StopReason = "length" // MaxNewTokens
	// the longest row fills the positions that the model was made for
	StopContext   StopReason = "context"
	StopCancelled StopReason = "cancelled" // the context ended
	StopFailed    StopReason = "failed"    // the device returned an error
	StopBreak     StopReason = "break"     // the loop over Stream ended early
)

// Timing says where the time of a generation went.
type Timing struct {
	Compile time.Duration // waiting for graphs to be compiled; what is compiled already takes none
	Prefill time.Duration // the prompt, up to its last logits
	Decode  time.Duration // calls of the decode loop, or of single steps
	Steps   int           // iterations of the loop, or steps, each of which makes a token of every row
}

// StepsPerSecond is the speed of decoding; times the rows it is tokens a second. 0 when nothing was
// decoded.
func (t Timing) StepsPerSecond() float64 {
	if t.Decode <= 0 {
		return 0
	}
	return float64(t.Steps) / t.Decode.Seconds()
}

// minus is what came after an earlier time of the same clock.
func (t Timing) minus(before Timing) Timing {
	return Timing{t.Compile - before.Compile, t.Prefill - before.Prefill, t.Decode - before.Decode, t.Steps - before.Steps}
}

func (t *Timing) compiling(f func() error) error  { return clocked(&t.Compile, f) }
func (t *Timing) prefilling(f func() error) error { return clocked(&t.Prefill, f) }

func clocked(sum *time.Duration, f func() error) error {
	start := time.Now()
	defer func() { *sum += time.Since(start) }()
	return f()
}
