package cli

import (
	"fmt"
	"strings"

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
		presetFlag: PresetNames(), "presets": PresetNames(), KindFlag: {"quantized", "full"},
		"cache-backend": {string(kvq.Quanto), string(kvq.HQQ), string(kvq.Blocks)},
		"nbits":         widths, "nbits-key": widths, "nbits-value": widths,
		"axis-key": axes, "axis-value": axes,
		"code-key": codeNames(), "code-value": codeNames(), "range-key": rangeNames(), "range-value": rangeNames(),
		"scales":         {string(kvq.ScaleFloat32), string(kvq.ScaleFloat16), string(kvq.ScaleBFloat16), string(kvq.Scale8)},
		"feedback-key":   {string(kvq.FeedbackQueries), string(kvq.FeedbackMixed), string(kvq.FeedbackCalibrated), string(kvq.FeedbackWeights)},
		"feedback-value": {string(kvq.FeedbackOutput)},
		"backend":        {device.XLACPU, device.XLACUDA, device.PureGo}, "dtype": {"auto", "float32", "float16", "bfloat16"},
		"weights": {"auto", "packed", "plain"},
	}
}

// wordsKey marks a flag with the words that a shell offers for it.
const wordsKey = "kvq_words"

// OfferWords has a shell complete the values of a flag that this package does not know.
func OfferWords(fs *pflag.FlagSet, name string, words []string) {
	_ = fs.SetAnnotation(name, wordsKey, words) // fails for no flag that exists
}

// CompleteValues lets a shell complete the values of a command's flags, and of those below it.
func CompleteValues(c *cobra.Command) {
	table := values()
	c.LocalFlags().VisitAll(func(f *pflag.Flag) {
		list := table[f.Name]
		if own := f.Annotations[wordsKey]; own != nil {
			list = own
		}
		if list != nil {
			// It fails for a flag that is not there, or has a function already.
			_ = c.RegisterFlagCompletionFunc(f.Name, offer(list))
		}
	})
	for _, sub := range c.Commands() {
		CompleteValues(sub)
	}
}

// offer completes a word, or the last one after a comma.
func offer(words []string) cobra.CompletionFunc {
	return func(_ *cobra.Command, _ []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
		before := typed[:strings.LastIndexByte(typed, ',')+1]
		list := make([]cobra.Completion, len(words))
		for i, w := range words {
			list[i] = before + w
		}
		return list, cobra.ShellCompDirectiveNoFileComp
	}
}
