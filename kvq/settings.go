package kvq

import (
	"encoding/json"

	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/kvq/internal/codes"
	"github.com/kvqbook/kvqbook/kvq/internal/numbers"
)

// resolved is a checked configuration: names looked up, text parsed.
type resolved struct {
	Config
	backend *backend // nil: full precision
	layers  []layerBits
}

// resolve checks the configuration for heads of headDim elements, its groups fitted to them.
func (c Config) resolve(headDim int) (r resolved, err error) {
	return c.resolveSides(headDim, headDim)
}

// resolveSides is resolve for keys and values of other dimensions.
func (c Config) resolveSides(keyDim, valueDim int) (r resolved, err error) {
	if c.Backend == Full {
		if c != (Config{}) {
			settings, _ := json.Marshal(c) // of texts, numbers and flags
			return r, usererr.New("kvq.Config: a full-precision cache (no Backend) takes no other settings, got %s", settings)
		}
		return r, nil
	}
	for name, n := range map[string]int{"ResidualLength": c.ResidualLength, "Sinks": c.Sinks, "QGroupSize": c.QGroupSize,
		"QGroupSizeKey": c.QGroupSizeKey, "QGroupSizeValue": c.QGroupSizeValue} {
		if n > maxSize {
			return r, usererr.New("kvq.Config.%s: want at most %d, got %d", name, maxSize, n)
		}
	}
	c = c.fitted(keyDim, valueDim)
	r = resolved{Config: c, backend: c.Backend.find()}
	if r.backend == nil {
		return r, usererr.New("kvq.Config.Backend: want %s, got %q", usererr.OneOf(backendNames()), c.Backend)
	}
	policy := r.backend.policy(c, codes.BlockTokens)
	if err := policy.check(); err != nil {
		return r, err
	}
	if err := c.Scales.Check(); err != nil {
		return r, usererr.New("kvq.Config.Scales: %w", err)
	}
	if r.layers, err = parseLayerBits(c.LayerBits); err != nil {
		return r, err
	}
	for _, layer := range append([]layerBits{{first: anyLayer, last: anyLayer}}, r.layers...) {
		for _, side := range []struct {
			keys bool
			dim  int
		}{{true, keyDim}, {false, valueDim}} {
			if err := r.settings(side.keys, layer.first).check(r.backend, policy, side.dim); err != nil {
				return r, err
			}
		}
	}
	k, v := r.settings(true, anyLayer), r.settings(false, anyLayer)
	if k.axis == PerChannel && v.axis == PerChannel && max(k.group, v.group)%min(k.group, v.group) != 0 {
		return r, usererr.New("kvq.Config: per-channel groups of %d tokens for keys and %d for values: one has to divide the other", k.group, v.group)
	}
	return r, nil
}

// anyLayer is a layer without bits of its own.
const anyLayer = -1

// settings are those of keys or values of a layer: other bits for single layers are looked up.
func (r resolved) settings(keys bool, layer int) settings {
	s := r.Config.settings(keys)
	for _, o := range r.layers {
		if layer < o.first || layer > o.last || !s.packed() {
			continue
		}
		s.bits = o.value
		if keys {
			s.bits = o.key
		}
	}
	return s
}

// settings is what is asked for of keys or values of a layer, with all defaults filled in.
type settings struct {
	keys      bool
	bits      int
	group     int // values that share a scale
	axis      Axis
	quantizer Quantizer
	usual     bool        // the quantizer is the backend's own
	scales    ScaleFormat // empty: the cache's dtype
	rotate    bool
	wholeRow  bool

	tokenScales bool // of keys: beside the scales of channels
	feedback    Feedback
}

// settings are those of keys or values of layers without bits of their own. The configuration may
// be one that is refused.
func (c Config) settings(keys bool) settings {
	pick := func(own, common, otherwise int) int {
		if own != 0 {
			return own
		}
		if common != 0 {
			return common
		}
		return otherwise
	}
	s := settings{keys: keys, scales: c.Scales}
	if keys {
		s.axis, s.quantizer, s.rotate, s.tokenScales, s.feedback = c.AxisKey, c.QuantizerKey, c.RotateKeys, c.TokenScales, c.FeedbackKey
		s.bits, s.group = pick(c.NBitsKey, c.NBits, 4), pick(c.QGroupSizeKey, c.QGroupSize, 64)
	} else {
		s.axis, s.quantizer, s.rotate, s.feedback = c.AxisValue, c.QuantizerValue, c.RotateValues, c.FeedbackValue
		s.bits, s.group = pick(c.NBitsValue, c.NBits, 4), pick(c.QGroupSizeValue, c.QGroupSize, 64)
	}
	if b := c.Backend.find(); b != nil {
		if s.quantizer == "" {
			s.quantizer = b.quantizer
		}
		if s.scales == "" {
			s.scales = b.scales
		}
		if b.perToken && s.axis == 1 {
			s.axis = PerToken // hqq numbers the axes of its own two-dimensional view
		}
		s.usual, s.wholeRow = s.quantizer == b.quantizer, b.wholeRow
	}
	if !s.packed() {
		s.bits, s.axis = 8, PerToken
	}
	return s
}

// packed tells whether codes are packed bits, in groups: others have one scale per token and head,
// whatever bits and group size say.
func (s settings) packed() bool {
	q := numbers.ByName(string(s.quantizer))
	return q == nil || q.Packed()
}

func (s settings) check(b *backend, p policy, headDim int) error {
	side := "Value"
	if s.keys {
		side = "Key"
	}
	quantizer := numbers.ByName(string(s.quantizer))
	if quantizer == nil {
		return usererr.New("kvq.Config.Quantizer%s: want %s, or nothing, got %q", side, usererr.OneOf(numbers.Names()), s.quantizer)
	}
	if !b.free && !s.usual {
		return usererr.New("kvq.Config.Quantizer%s: %q needs backend %q, got %q", side, s.quantizer, Blocks, b.name)
	}
	if !b.free && s.rotate {
		return usererr.New("kvq.Config.Rotate%ss: rotation needs backend %q, got %q", side, Blocks, b.name)
	}
	if err := s.feedback.check(s.keys, quantizer, b); err != nil {
		return err
	}
	if quantizer.Check != nil {
		if err := quantizer.Check(s.spec()); err != nil {
			return usererr.New("kvq.Config.%w", err)
		}
	}
	if !codes.IsWidth(s.bits) {
		return usererr.New("kvq.Config.NBits%s: want %s, got %d", side, usererr.OneOf(Widths()), s.bits)
	}
	if s.axis != PerToken && s.axis != PerChannel {
		return usererr.New("kvq.Config.Axis%s: want %d (per token) or %d (per channel), got %d", side, PerToken, PerChannel, s.axis)
	}
	if s.axis == PerChannel && b.perToken {
		return usererr.New("kvq.Config.Axis%s: backend %s groups per token only (its axis 1), got per channel", side, b.name)
	}
	if s.tokenScales {
		switch {
		case !b.free:
			return usererr.New("kvq.Config.TokenScales: scales of tokens need backend %q, got %q", Blocks, b.name)
		case !s.packed():
			return usererr.New("kvq.Config.TokenScales: want keys in groups per channel, got %s, which has a scale a token already", s.quantizer)
		case s.axis != PerChannel:
			return usererr.New("kvq.Config.TokenScales: want keys in groups per channel (axis %d), got %s (axis %d)", PerChannel, s.axis, s.axis)
		}
	}
	if s.group < 1 {
		return usererr.New("kvq.Config.QGroupSize%s: want at least 1, got %d", side, s.group)
	}
	if s.axis == PerToken {
		if s.packed() && headDim%s.group != 0 {
			return usererr.New("kvq.Config.QGroupSize%s: want a divisor of the head dimension %d, got %d: take %d (kvq.Config.For)",
				side, headDim, s.group, s.fittingGroup(headDim))
		}
		return nil
	}
	if s.group%codes.BlockTokens != 0 {
		return usererr.New("kvq.Config.QGroupSize%s: want a multiple of %d tokens for per-channel groups, got %d", side, codes.BlockTokens, s.group)
	}
	return p.checkGroup(s.group)
}

func (s settings) spec() numbers.Spec {
	return numbers.Spec{
		Quantizer: numbers.ByName(string(s.quantizer)), Bits: s.bits, Scales: s.scales, Keys: s.keys, WholeRow: s.wholeRow,
	}
}

// format is how codes are made and how they lie, for heads of headDim elements.
func (s settings) format(headDim int) codes.Format {
	f := codes.New(s.spec(), headDim, s.group, s.axis == PerChannel, s.rotate)
	f.TokenScales = s.tokenScales
	f.Feedback = s.feedback != ""
	return f
}
