package kvq

import "fmt"

// Axis says along which axis a group of values shares its scale.
type Axis int

const (
	// PerToken groups run along the head dimension: one token, one head, QGroupSize neighbouring
	// channels. transformers' axis 0.
	PerToken Axis = 0
	// PerChannel groups run along tokens: one channel of one head, QGroupSize tokens that follow
	// each other (KIVI's layout for keys). transformers' axis -1, except that a group never crosses
	// heads or rows.
	PerChannel Axis = -1
)

func (a Axis) String() string {
	if a == PerChannel {
		return "per channel"
	}
	return "per token"
}

// Config says how a cache keeps keys and values. It is a plain comparable value: the zero value is
// full precision, the named configurations are [Tutorial] and [Preset]. Fields for keys or values
// alone override the common one where they are not 0.
type Config struct {
	Backend Backend

	// Bits of a code; 0 = 4. [Widths] lists the numbers there are.
	NBits, NBitsKey, NBitsValue int

	// LayerBits gives single layers other bits for keys and values, for instance "0-1=8/6,29=6/4";
	// empty: all layers alike.
	LayerBits string

	// QGroupSize is the number of values that share a scale; 0 = 64, as in transformers, or what
	// [Config.For] takes for it. Along the head dimension it has to divide that; a multiple of 32
	// along tokens.
	QGroupSize, QGroupSizeKey, QGroupSizeValue int

	AxisKey, AxisValue Axis

	// QuantizerKey and QuantizerValue say how a group becomes codes; empty: the backend's own.
	// Quanto and HQQ take no others.
	QuantizerKey, QuantizerValue Quantizer

	// ResidualLength, in tokens. transformers' policy: the window is flushed whole when it holds so
	// many (at least 1). Blocks: so many newest tokens are always exact (0 or more).
	ResidualLength int

	// Sinks is how many first tokens of each row stay exact for good (StreamingLLM's attention
	// sinks). Blocks only.
	Sinks int

	// FeedbackKey and FeedbackValue say what tells how much the errors of a key's or a value's
	// channels matter beside one another when they are rounded; empty: each code is rounded alone.
	// Blocks only, for quantizers with zero points.
	FeedbackKey, FeedbackValue Feedback

	// Scales is how scales and zero points are stored; empty: in the cache's dtype (Quanto, HQQ),
	// in float16 (Blocks).
	Scales ScaleFormat

	// RotateKeys and RotateValues rotate keys or values by a Walsh-Hadamard transform over the head
	// dimension before they are coded. Queries and outputs are rotated along with them, so the
	// attention is the same.
	RotateKeys, RotateValues bool

	// TokenScales gives keys a scale for each token, in a byte, beside the scale for each channel:
	// key = token·(scale·code + zero). A loud token then does not widen the ranges of the others
	// (KVarN, arXiv 2606.03458). 8/HeadDim bits more a key. Blocks with keys per channel only.
	TokenScales bool
}

// Tutorial is the configuration of the tutorial: backend quanto, nbits 4, q_group_size 32,
// residual_length 64.
func Tutorial() Config {
	return Config{Backend: Quanto, NBits: 4, QGroupSize: 32, ResidualLength: 64}
}

// Quantized tells whether the cache holds codes at all.
func (c Config) Quantized() bool { return c.Backend != Full }

// Validate checks the configuration for heads of headDim elements. Its error is one line: what was
// wanted, what came.
func (c Config) Validate(headDim int) error {
	_, err := c.resolve(headDim)
	return err
}

// String names the configuration in a few words, for tables: "quanto 4 bit g32 r64".
func (c Config) String() string {
	if c.Backend == Full {
		return "full precision"
	}
	k, v := c.settings(true).String(), c.settings(false).String()
	text := string(c.Backend) + " " + k
	if k != v {
		text = fmt.Sprintf("%s keys %s, values %s", c.Backend, k, v)
	}
	if c.LayerBits != "" {
		text += " layers " + c.LayerBits
	}
	if c.Scales != "" {
		text += " scales " + string(c.Scales)
	}
	text += fmt.Sprintf(" r%d", c.ResidualLength)
	if c.Sinks > 0 {
		text += fmt.Sprintf(" %d sinks", c.Sinks)
	}
	return text
}

func (s settings) String() string {
	if !s.packed() {
		return string(s.quantizer)
	}
	text := fmt.Sprintf("%d bit g%d", s.bits, s.group)
	if s.axis == PerChannel {
		text += " per channel"
	}
	if s.quantizer != "" && !s.usual && !s.quantizer.HasZeros() {
		text += " " + string(s.quantizer)
	}
	if s.tokenScales {
		text += " and token"
	}
	if s.rotate {
		text += " rotated"
	}
	if !s.usual && s.quantizer.HasZeros() {
		text += " " + string(s.quantizer)
	}
	if s.feedback != "" {
		text += " feedback " + string(s.feedback)
	}
	return text
}
