package cli

import (
	"regexp"
	"strings"

	"github.com/spf13/pflag"

	"github.com/kvqbook/kvqbook/internal/usererr"
)

// fieldFlags are the flags that set a field of kvq.Config, the most particular one first.
var fieldFlags = map[string][]string{
	"Backend":         {"cache-backend"},
	"NBits":           {"nbits"},
	"NBitsKey":        {"nbits-key", "nbits"},
	"NBitsValue":      {"nbits-value", "nbits"},
	"LayerBits":       {"layer-bits"},
	"QGroupSize":      {"q-group-size"},
	"QGroupSizeKey":   {"q-group-size-key", "q-group-size"},
	"QGroupSizeValue": {"q-group-size-value", "q-group-size"},
	"ResidualLength":  {"residual-length"},
	"AxisKey":         {"axis-key"},
	"AxisValue":       {"axis-value"},
	"QuantizerKey":    {"range-key", "code-key"},
	"QuantizerValue":  {"range-value", "code-value"},
	"Sinks":           {"sinks"},
	"Scales":          {"scales"},
	"RotateKeys":      {"rotate-keys"},
	"RotateValues":    {"rotate-values"},
	"TokenScales":     {"token-scales"},
	"FeedbackKey":     {"feedback-key"},
	"FeedbackValue":   {"feedback-value"},
}

// goNames are the names that package kvq uses in its errors.
var goNames = regexp.MustCompile(` \(kvq\.Config\.For\)|kvq\.Config\.(\w+)|kvq\.Config|kvq\.Preset: `)

// inFlagWords says an error of package kvq in the words of a person who set flags: a field becomes
// the flag that set it.
func inFlagWords(fs *pflag.FlagSet, err error) error {
	text := goNames.ReplaceAllStringFunc(err.Error(), func(name string) string {
		switch field := goNames.FindStringSubmatch(name)[1]; {
		case field != "":
			return "--" + flagOf(fs, field)
		case name == "kvq.Config":
			return "--" + KindFlag
		}
		return "" // the name of the flag stands before it, or there is no flag
	})
	if text == err.Error() {
		return err
	}
	return usererr.New("%s", strings.TrimPrefix(text, "cache: "))
}

// flagOf is the flag that set a field, else the one that sets it most broadly.
func flagOf(fs *pflag.FlagSet, field string) string {
	flags := fieldFlags[field]
	for _, name := range flags {
		if fs.Changed(name) {
			return name
		}
	}
	return flags[len(flags)-1]
}
