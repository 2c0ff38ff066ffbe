package kvq

import (
	"fmt"

	"github.com/kvqbook/kvqbook/kvq/internal/codes"
	"github.com/kvqbook/kvqbook/kvq/internal/numbers"
	"github.com/pkg/errors"
)

// Backend names who decides how tokens become codes, and when.
type Backend string

const (
	// Full keeps everything in full precision. It is the zero value.
	Full Backend = ""
	// Quanto is the tutorial's: min-max groups with a float zero point, and transformers' policy.
	// Source: transformers 4.57 cache_utils.py (QuantoQuantizedLayer) and optimum-quanto 0.2.7 (MaxOptimizer).
	Quanto Backend = "quanto"
	// HQQ searches the zero point by half-quadratic splitting, with transformers' policy.
	// Source: transformers 4.57 cache_utils.py (HQQQuantizedLayer) and hqq 0.2.8 (optimize_weights_proximal_legacy), axis 1.
	HQQ Backend = "hqq"
	// Blocks is this library's own: the newest ResidualLength tokens are always exact, the prompt's too, and older ones leave the window
	// a block at a time. Every preset uses it.
	Blocks Backend = "blocks"
)

// Axis says along which axis a group of values shares its scale.
type Axis int

const (
	// PerToken groups run along the head dimension: one token, one head, QGroupSize neighbouring channels. transformers' axis 0.
	PerToken Axis = 0
	// PerChannel groups run along tokens: one channel of one head, QGroupSize tokens that follow each other (KIVI's layout for keys).
	// transformers' axis -1, except that a group never crosses heads or rows.
	PerChannel Axis = -1
)

func (a Axis) String() string {
	if a == PerChannel {
		return "per channel"
	}
	return "per token"
}

// Code says what a code stands for.
type Code string

const (
	// Affine codes 0..2^bits-1 decode to scale·code + zero, with a float zero. The zero value.
	Affine Code = ""
	// Symmetric codes have a scale and no zero point: the middle code is 0.
	Symmetric Code = "symmetric"
	// Float8 stores e4m3 numbers, one scale per token and head. Bits and group size are not used.
	Float8 Code = "float8"
	// Int8 stores signed bytes, one scale per token and head. Bits and group size are not used.
	Int8 Code = "int8"
)

// Range says how the range of a group is found.
type Range string

const (
	// MinMax covers every value. The zero value.
	MinMax Range = ""
	// LeastSquares shrinks the range to where the squared error is least. Better-looking values, but worse answers: what is cut off is cut
	// off on one side, and attention averages noise away, not a bias (docs/quality.md).
	LeastSquares Range = "least-squares"
	// Unbiased shrinks the range too, and then widens the scale so that the decoded group varies as the original does.
	Unbiased Range = "unbiased"
)

// Config says how a cache keeps keys and values. It is a plain comparable value: the zero value is full precision, the named
// configurations are [Tutorial] and [Preset]. Fields for keys or values alone override the common one where they are not 0.
type Config struct {
	Backend Backend

	// Bits of a code: 2, 3, 4, 5, 6 or 8.
	NBits, NBitsKey, NBitsValue int

	// LayerBits gives single layers other bits for keys and values, for instance "0-1=8/6,29=6/4"; empty: all layers alike.
	LayerBits string

	// QGroupSize is the number of values that share a scale; 0 = 64, as in transformers.
	QGroupSize, QGroupSizeKey, QGroupSizeValue int

	AxisKey, AxisValue Axis

	CodeKey, CodeValue Code

	// ResidualLength, in tokens. transformers' policy: the window is flushed whole when it holds so many (at least 1).
	// Blocks: so many newest tokens are always exact (0 or more).
	ResidualLength int

	// Sinks is how many first tokens of each row stay exact for good (StreamingLLM's attention sinks). Blocks only.
	Sinks int

	// Scales is how scales and zero points are stored; empty: in the cache's dtype (Quanto, HQQ), in float16 (Blocks).
	Scales ScaleFormat

	// RotateKeys and RotateValues turn keys or values by a Walsh-Hadamard transform over the head dimension before they are coded. Queries
	// and outputs are turned along with them, so the attention is the same.
	RotateKeys, RotateValues bool

	// RangeKey and RangeValue say how the range of a group is found; Blocks only.
	RangeKey, RangeValue Range
}

// Tutorial is the configuration of the tutorial: backend quanto, nbits 4, q_group_size 32, residual_length 64.
func Tutorial() Config {
	return Config{Backend: Quanto, NBits: 4, QGroupSize: 32, ResidualLength: 64}
}

// Quantized tells whether the cache holds codes at all.
func (c Config) Quantized() bool { return c.Backend != Full }

// Validate checks the configuration for heads of headDim elements. Its error is one line: what was wanted, what came.
func (c Config) Validate(headDim int) error {
	if c.Backend == Full {
		if c != (Config{}) {
			return errors.Errorf("kvq.Config: a full-precision cache (no Backend) takes no other settings, got %+v", c)
		}
		return nil
	}
	if c.Backend != Quanto && c.Backend != HQQ && c.Backend != Blocks {
		return errors.Errorf("kvq.Config.Backend: want %q, %q or %q, got %q", Quanto, HQQ, Blocks, c.Backend)
	}
	own := c.Backend == Blocks
	if !own && c.ResidualLength < 1 || c.ResidualLength < 0 {
		return errors.Errorf("kvq.Config.ResidualLength: want at least %d for backend %s, got %d", map[bool]int{true: 0, false: 1}[own], c.Backend, c.ResidualLength)
	}
	if c.Sinks < 0 || c.Sinks > 0 && !own {
		return errors.Errorf("kvq.Config.Sinks: want 0%s, got %d", map[bool]string{true: " or more", false: " (sinks need backend \"blocks\")"}[own], c.Sinks)
	}
	if err := c.Scales.Check(); err != nil {
		return errors.WithMessage(err, "kvq.Config.Scales")
	}
	overrides, err := parseLayerBits(c.LayerBits)
	if err != nil {
		return err
	}
	for _, layer := range append([]layerBits{{first: -1, last: -1}}, overrides...) {
		for _, keys := range []bool{true, false} {
			if err := c.side(keys, layer.first).validate(c, headDim); err != nil {
				return err
			}
		}
	}
	k, v := c.side(true, -1), c.side(false, -1)
	if k.axis == PerChannel && v.axis == PerChannel && max(k.group, v.group)%min(k.group, v.group) != 0 {
		return errors.Errorf("kvq.Config: per-channel groups of %d tokens for keys and %d for values: one has to divide the other", k.group, v.group)
	}
	return nil
}

// side is how keys or values of one layer are coded.
type side struct {
	keys   bool
	name   string // "key" or "value", for messages
	bits   int
	group  int // values that share a scale
	axis   Axis
	code   Code
	scales ScaleFormat // empty: the cache's dtype
	rotate bool
	fit    Range
	hqq    bool
}

// quantizer is the one that the settings choose.
func (s side) quantizer() *numbers.Quantizer {
	switch {
	case s.code != Affine:
		return numbers.ByName(string(s.code))
	case s.fit != MinMax:
		return numbers.ByName(string(s.fit))
	case s.hqq:
		return numbers.HQQ
	}
	return numbers.MinMax
}

// format is how codes are made and how they lie, for heads of headDim elements. The settings are valid.
func (s side) format(headDim int) codes.Format {
	return codes.New(s.spec(), headDim, s.group, s.axis == PerChannel, s.rotate)
}

func (s side) spec() numbers.Spec {
	return numbers.Spec{Quantizer: s.quantizer(), Bits: s.bits, Scales: s.scales, Keys: s.keys, WholeRow: s.hqq}
}

// side resolves the settings for keys or values of a layer (-1: a layer without an override of its own).
func (c Config) side(keys bool, layer int) side {
	pick := func(own, common, otherwise int) int {
		if own != 0 {
			return own
		}
		if common != 0 {
			return common
		}
		return otherwise
	}
	s := side{keys: keys, scales: c.Scales, hqq: c.Backend == HQQ}
	if s.scales == "" && c.Backend == Blocks {
		s.scales = ScaleFloat16
	}
	if keys {
		s.name, s.axis, s.code, s.rotate, s.fit = "key", c.AxisKey, c.CodeKey, c.RotateKeys, c.RangeKey
		s.bits, s.group = pick(c.NBitsKey, c.NBits, 4), pick(c.QGroupSizeKey, c.QGroupSize, 64)
	} else {
		s.name, s.axis, s.code, s.rotate, s.fit = "value", c.AxisValue, c.CodeValue, c.RotateValues, c.RangeValue
		s.bits, s.group = pick(c.NBitsValue, c.NBits, 4), pick(c.QGroupSizeValue, c.QGroupSize, 64)
	}
	if overrides, err := parseLayerBits(c.LayerBits); err == nil {
		for _, o := range overrides {
			if layer >= o.first && layer <= o.last {
				s.bits = map[bool]int{true: o.key, false: o.value}[keys]
			}
		}
	}
	if c.Backend == HQQ && s.axis == 1 {
		s.axis = PerToken // hqq numbers the axes of its own two-dimensional view
	}
	if s.perHead() {
		s.bits, s.axis = 8, PerToken
	}
	return s
}

// perHead tells whether the side has one scale per token and head, whatever the group size says.
func (s side) perHead() bool { q := s.quantizer(); return q != nil && !q.Packed() }

func (s side) validate(c Config, headDim int) error {
	title := map[string]string{"key": "Key", "value": "Value"}[s.name]
	switch s.code {
	case Affine, Symmetric:
	case Float8, Int8:
		if c.Backend != Blocks {
			return errors.Errorf("kvq.Config.Code%s: %q needs backend %q, got %q", title, s.code, Blocks, c.Backend)
		}
	default:
		return errors.Errorf("kvq.Config.Code%s: want %q (affine), %q, %q or %q, got %q", title, Affine, Symmetric, Float8, Int8, s.code)
	}
	if s.fit != MinMax && s.fit != LeastSquares && s.fit != Unbiased {
		return errors.Errorf("kvq.Config.Range%s: want %q (minimum and maximum), %q or %q, got %q", title, MinMax, LeastSquares, Unbiased, s.fit)
	}
	if s.fit != MinMax && s.code != Affine {
		return errors.Errorf("kvq.Config.Range%s: %q needs affine codes, got %q", title, s.fit, s.code)
	}
	if c.Backend != Blocks && (s.code != Affine || s.rotate || s.fit != MinMax) {
		return errors.Errorf("kvq.Config: symmetric codes, rotation and range search need backend %q, got %q", Blocks, c.Backend)
	}
	if check := s.quantizer().Check; check != nil {
		if err := check(s.spec()); err != nil {
			return errors.Errorf("kvq.Config.%v", err)
		}
	}
	if !codes.IsWidth(s.bits) {
		return errors.Errorf("kvq.Config.NBits%s: want %s, got %d", title, codes.WidthList(), s.bits)
	}
	if headDim%8 != 0 {
		return errors.Errorf("kvq: head dimension %d: want a multiple of 8, so that codes fill whole bytes", headDim)
	}
	if s.axis != PerToken && s.axis != PerChannel {
		return errors.Errorf("kvq.Config.Axis%s: want %d (per token) or %d (per channel), got %d", title, PerToken, PerChannel, s.axis)
	}
	if s.axis == PerChannel && s.hqq {
		return errors.Errorf("kvq.Config.Axis%s: backend hqq groups per token only (its axis 1), got per channel", title)
	}
	if s.group < 1 {
		return errors.Errorf("kvq.Config.QGroupSize%s: want at least 1, got %d", title, s.group)
	}
	if s.axis == PerToken && !s.perHead() && headDim%s.group != 0 {
		return errors.Errorf("kvq.Config.QGroupSize%s: want a divisor of the head dimension %d, got %d", title, headDim, s.group)
	}
	if s.axis == PerChannel && s.group%codes.BlockTokens != 0 {
		return errors.Errorf("kvq.Config.QGroupSize%s: want a multiple of %d tokens for per-channel groups, got %d", title, codes.BlockTokens, s.group)
	}
	if s.axis == PerChannel && c.Backend != Blocks && c.ResidualLength%s.group != 0 {
		return errors.Errorf("kvq.Config.ResidualLength: want a multiple of the per-channel group of %d tokens, got %d: a shorter window would "+
			"never fill a group", s.group, c.ResidualLength)
	}
	return nil
}

// String names the configuration in a few words, for tables: "quanto 4 bit g32 r64".
func (c Config) String() string {
	if c.Backend == Full {
		return "full precision"
	}
	describe := func(s side) string {
		if s.perHead() {
			return string(s.code)
		}
		text := fmt.Sprintf("%d bit g%d", s.bits, s.group)
		if s.axis == PerChannel {
			text += " per channel"
		}
		if s.code == Symmetric {
			text += " symmetric"
		}
		if s.rotate {
			text += " rotated"
		}
		if s.fit != MinMax {
			text += " " + string(s.fit)
		}
		return text
	}
	k, v := describe(c.side(true, -1)), describe(c.side(false, -1))
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
