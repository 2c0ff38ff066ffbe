package kvq

import "github.com/kvqbook/kvqbook/kvq/internal/codes"

// For returns the configuration with groups that fit heads of headDim elements. A group along the
// head dimension has to divide it, so that it does not reach into the next token; where one does
// not, it becomes the largest divisor below it. All else stays, groups along tokens too.
//
//	Tutorial().For(80)      groups of 20 instead of 32
//	Tutorial().For(128)     as it is: 32 divides 128
//
// For keys, a divisor of at least half that size is taken before one whose codes would share words
// with those of the next group: such words have to be unpacked (100: 20 with 4 bits, and not 25).
func (c Config) For(headDim int) Config { return c.fit(headDim, headDim, true, true) }

// GroupSizes returns how many values of keys and of values share a scale, defaults filled in.
func (c Config) GroupSizes() (key, value int) {
	return c.settings(true).group, c.settings(false).group
}

// fitted is the configuration as [New] takes it: sizes that nobody chose for this head dimension
// are those of For, of keys and of values each for its own.
func (c Config) fitted(keyDim, valueDim int) Config {
	if c.isNamed() {
		return c.fit(keyDim, valueDim, true, true)
	}
	return c.fit(keyDim, valueDim, c.QGroupSizeKey == 0 && c.QGroupSize == 0, c.QGroupSizeValue == 0 && c.QGroupSize == 0)
}

// isNamed tells whether this is the tutorial's configuration or a preset, unchanged.
func (c Config) isNamed() bool {
	for _, preset := range presets {
		if c == preset {
			return true
		}
	}
	return c == Tutorial()
}

// fit is For of keys, of values or of both.
func (c Config) fit(keyDim, valueDim int, keys, values bool) Config {
	if !c.Quantized() || min(keyDim, valueDim) < 1 {
		return c
	}
	k, v := c.settings(true), c.settings(false)
	key, value := k.group, v.group
	if keys {
		key = k.fittingGroup(keyDim)
	}
	if values {
		value = v.fittingGroup(valueDim)
	}
	switch {
	case key == k.group && value == v.group:
	case key == value && c.QGroupSizeKey == 0 && c.QGroupSizeValue == 0:
		c.QGroupSize = key
	default:
		if key != k.group {
			c.QGroupSizeKey = key
		}
		if value != v.group {
			c.QGroupSizeValue = value
		}
	}
	return c
}

// fittingGroup is the group size that is taken where s.group is wanted: see [Config.For].
func (s settings) fittingGroup(headDim int) int {
	if s.axis != PerToken || !s.packed() || s.group < 1 || headDim%s.group == 0 {
		return s.group
	}
	largest := min(s.group, headDim)
	for headDim%largest != 0 {
		largest--
	}
	if !codes.IsWidth(s.bits) {
		return largest // refused later, by the bits
	}
	for group := largest; 2*group >= largest; group-- {
		layout := codes.Layout{Keys: s.keys, HeadDim: headDim, Bits: s.bits, Packed: true, Group: group}
		if headDim%group == 0 && layout.Words().Whole {
			return group
		}
	}
	return largest
}
