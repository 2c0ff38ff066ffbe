package cli

import (
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// headingKey marks a flag that help lists under a heading of its own, after the flags that most
// people want.
const headingKey = "kvq_heading"

// under puts flags under a heading.
func under(fs *pflag.FlagSet, heading string, flags ...string) {
	for _, name := range flags {
		_ = fs.SetAnnotation(name, headingKey, []string{heading}) // fails for no flag that exists
	}
}

// Headings are those of help, in their order.
const (
	samplingHeading = "Sampling"
	cacheHeading    = "Cache"
	modelHeading    = "Model and device"
	moreHeading     = "More"
)

// UnderSampling puts flags under the heading of sampling.
func UnderSampling(fs *pflag.FlagSet, flags ...string) { under(fs, samplingHeading, flags...) }

// UnderCache puts flags under the heading of the cache.
func UnderCache(fs *pflag.FlagSet, flags ...string) { under(fs, cacheHeading, flags...) }

// UnderModel puts flags under the heading of model and device.
func UnderModel(fs *pflag.FlagSet, flags ...string) { under(fs, modelHeading, flags...) }

// UnderMore puts flags under the last heading: what few people want.
func UnderMore(fs *pflag.FlagSet, flags ...string) { under(fs, moreHeading, flags...) }

// GroupHelp lets the help of root and its commands list flags by heading.
func GroupHelp(root *cobra.Command) {
	cobra.AddTemplateFunc("flagsByHeading", flagsByHeading)
	const all = "{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}"
	root.SetUsageTemplate(strings.Replace(root.UsageTemplate(), all, "{{flagsByHeading . | trimTrailingWhitespaces}}", 1))
}

// flagsByHeading lists a command's flags, those without a heading first.
func flagsByHeading(c *cobra.Command) string {
	width, _ := TerminalSize(c.OutOrStdout())
	groups := map[string]*pflag.FlagSet{}
	c.LocalFlags().VisitAll(func(f *pflag.Flag) {
		heading := strings.Join(f.Annotations[headingKey], "")
		if groups[heading] == nil {
			groups[heading] = pflag.NewFlagSet("", pflag.ContinueOnError)
		}
		groups[heading].AddFlag(f)
	})
	var b strings.Builder
	for _, heading := range []string{"", samplingHeading, cacheHeading, modelHeading, moreHeading} {
		if fs := groups[heading]; fs != nil && fs.HasAvailableFlags() {
			if heading != "" {
				b.WriteString("\n" + heading + ":\n")
			}
			b.WriteString(fs.FlagUsagesWrapped(width))
		}
	}
	return b.String()
}
