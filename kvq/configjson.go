package kvq

import (
	"encoding/json"
	"strings"

	"github.com/kvqbook/kvqbook/internal/usererr"
)

// fileConfig is a [Config] as files have it. There a quantizer with zero points is a range, and one
// without is a code; its field is empty for the backend's own.
type fileConfig struct {
	Backend                                    Backend
	NBits, NBitsKey, NBitsValue                int
	LayerBits                                  string
	QGroupSize, QGroupSizeKey, QGroupSizeValue int
	AxisKey, AxisValue                         Axis
	CodeKey, CodeValue                         Quantizer
	ResidualLength, Sinks                      int
	Scales                                     ScaleFormat
	RotateKeys, RotateValues                   bool
	RangeKey, RangeValue                       Quantizer

	TokenScales   bool     `json:",omitempty"`
	FeedbackKey   Feedback `json:",omitempty"`
	FeedbackValue Feedback `json:",omitempty"`
}

// MarshalJSON writes the form that saved caches have.
func (c Config) MarshalJSON() ([]byte, error) {
	f := fileConfig{
		Backend: c.Backend, NBits: c.NBits, NBitsKey: c.NBitsKey, NBitsValue: c.NBitsValue, LayerBits: c.LayerBits,
		QGroupSize: c.QGroupSize, QGroupSizeKey: c.QGroupSizeKey, QGroupSizeValue: c.QGroupSizeValue,
		AxisKey: c.AxisKey, AxisValue: c.AxisValue, ResidualLength: c.ResidualLength, Sinks: c.Sinks, Scales: c.Scales,
		RotateKeys: c.RotateKeys, RotateValues: c.RotateValues, TokenScales: c.TokenScales,
		FeedbackKey: c.FeedbackKey, FeedbackValue: c.FeedbackValue,
	}
	f.CodeKey, f.RangeKey = codeAndRange(c.QuantizerKey)
	f.CodeValue, f.RangeValue = codeAndRange(c.QuantizerValue)
	return json.Marshal(f)
}

func codeAndRange(q Quantizer) (code, rng Quantizer) {
	if q.HasZeros() {
		return "", q
	}
	return q, ""
}

// UnmarshalJSON reads what MarshalJSON writes. A setting that is not known is refused: it would be
// lost.
func (c *Config) UnmarshalJSON(text []byte) error {
	var f fileConfig
	if err := strictJSON(string(text), &f); err != nil {
		return err
	}
	*c = Config{
		Backend: f.Backend, NBits: f.NBits, NBitsKey: f.NBitsKey, NBitsValue: f.NBitsValue, LayerBits: f.LayerBits,
		QGroupSize: f.QGroupSize, QGroupSizeKey: f.QGroupSizeKey, QGroupSizeValue: f.QGroupSizeValue,
		AxisKey: f.AxisKey, AxisValue: f.AxisValue, ResidualLength: f.ResidualLength, Sinks: f.Sinks, Scales: f.Scales,
		RotateKeys: f.RotateKeys, RotateValues: f.RotateValues, TokenScales: f.TokenScales,
		FeedbackKey: f.FeedbackKey, FeedbackValue: f.FeedbackValue,
	}
	for _, side := range []struct {
		code, rng Quantizer
		to        *Quantizer
	}{{f.CodeKey, f.RangeKey, &c.QuantizerKey}, {f.CodeValue, f.RangeValue, &c.QuantizerValue}} {
		if side.code != "" && side.rng != "" {
			return usererr.New("want a code or a range, got code %.40q and range %.40q", side.code, side.rng)
		}
		*side.to = side.code + side.rng
	}
	return nil
}

func strictJSON(text string, value any) error {
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	return d.Decode(value)
}
