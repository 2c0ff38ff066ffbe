package cli

import (
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/kvqbook/kvqbook/device"
	"github.com/kvqbook/kvqbook/kvq"
)

// values lists what a shell offers for the flags that take one of a few words.
func values() map[string][]string {
	var widths []string
	for _, n := range kvq.Widths() {
		widths = append(widths, fmt.Sprint(n))
	}
	axes := []string{fmt.Sprint(kvq.PerToken), fmt.Sprint(kvq.PerChannel)}
	return map[string][]string{
		presetFlag: PresetNames(), KindFlag: {"quantized", "full"},
		"cache-backend": {string(kvq.Quanto), string(kvq.HQQ), string(kvq.Blocks)},
		"nbits":         widths, "nbits-key": widths, "nbits-value": widths,
		"axis-key": axes, "axis-value": axes,
		"code-key": codeNames(), "code-value": codeNames(), "range-key": rangeNames(), "range-value": rangeNames(),
		"scales":  {string(kvq.ScaleFloat32), string(kvq.ScaleFloat16), string(kvq.ScaleBFloat16), string(kvq.Scale8)},
		"backend": {device.XLACPU, device.XLACUDA, device.PureGo}, "dtype": {"auto", "float32", "float16", "bfloat16"},
		"weights": {"auto", "packed", "plain"},
	}
}

// CompleteValues lets a shell complete the values of a command's flags, and of those below it.
func CompleteValues(c *cobra.Command) {
	table := values()
	c.LocalFlags().VisitAll(func(f *pflag.Flag) {
		if list := table[f.Name]; list != nil {
			// It fails for a flag that is not there, or has a function already.
			_ = c.RegisterFlagCompletionFunc(f.Name, cobra.FixedCompletions(list, cobra.ShellCompDirectiveNoFileComp))
		}
	})
	for _, sub := range c.Commands() {
		CompleteValues(sub)
	}
}
