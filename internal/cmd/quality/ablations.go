package main

import (
	"strings"

	"github.com/kvqbook/kvqbook/kvq"
)

// idea is one of those that a preset of few bits is made of.
type idea struct {
	name, why string
	without   func(preset, alike *kvq.Config) // takes it from preset; alike is the preset for unknown models
}

var ideas = []idea{
	{"token scales", "a scale for each token of keys beside that for each channel", func(c, _ *kvq.Config) { c.TokenScales = false }},
	{"feedback", "errors of keys weighed by the prompt's queries", func(c, _ *kvq.Config) { c.FeedbackKey = kvq.NoFeedback }},
	{"bits by layer", "searched for this model", func(c, alike *kvq.Config) {
		c.NBitsKey, c.NBitsValue, c.QGroupSizeKey, c.LayerBits = alike.NBitsKey, alike.NBitsValue, alike.QGroupSizeKey, ""
	}},
}

// ablations are the presets of few bits with each of their ideas alone, with all but each, and with
// none. Bits by layer are spent beside the others, so a row without them has about as many bits.
func ablations(preset func(string) kvq.Config) (list []step) {
	for _, name := range []string{"smallest", "lower", "lowest"} {
		alike, err := kvq.Preset(name)
		if err != nil {
			panic(err)
		}
		for chosen := range 1<<len(ideas) - 1 {
			c, with, without, why := preset(name), []string{}, []string{}, ""
			for i, idea := range ideas {
				if chosen>>i&1 == 1 {
					with, why = append(with, idea.name), idea.why
				} else {
					idea.without(&c, &alike)
					without = append(without, idea.name)
				}
			}
			if len(with) != 1 {
				why = ""
			}
			title := name + " with " + strings.Join(with, " and ") + " alone"
			switch {
			case len(with) == 0:
				title = name + " with none of its ideas"
			case len(without) == 1:
				title = name + " without " + without[0]
			}
			list = append(list, step{title, c, why, ""})
		}
	}
	return list
}

// sources are the presets of few bits with other things to weigh errors by than the prompt's
// queries, and with the errors of values weighed too.
func sources(preset func(string) kvq.Config) (list []step) {
	for _, name := range []string{"smallest", "lower", "lowest"} {
		for _, s := range []struct {
			how, why   string
			key, value kvq.Feedback
		}{
			{"mixed feedback", "half by the prompt's queries, half by queries of other texts", kvq.FeedbackMixed, kvq.NoFeedback},
			{"calibrated feedback", "errors of keys weighed by queries of other texts", kvq.FeedbackCalibrated, kvq.NoFeedback},
			{"feedback by weights", "errors of keys weighed by what the weights tell of queries", kvq.FeedbackWeights, kvq.NoFeedback},
			{"feedback on values too", "by the matrix behind attention", kvq.FeedbackQueries, kvq.FeedbackOutput},
		} {
			c := preset(name)
			c.FeedbackKey, c.FeedbackValue = s.key, s.value
			list = append(list, step{name + " with " + s.how, c, s.why, ""})
		}
	}
	return list
}

// fewest show how far fewer bits get: layers of 1 and 2 bits, and 3 where they help most, by the
// measurements that spread the presets' bits.
func fewest(preset func(string) kvq.Config) (list []step) {
	for _, f := range []struct{ name, layers string }{
		{"2.0 bits", "0-1=1/1,2=2/1,3-5=3/2,6=2/1,7-8=3/2,9-10=2/1,11-13=1/1,15=2/1,16=1/1,18=3/2,19=1/1,20=3/2,21=1/1,22=2/1,23=3/2,25=1/1,27=1/1,28=2/1,29=1/1"},
		{"1.6 bits", "0-2=1/1,3-7=2/1,9=2/1,10-13=1/1,14=2/1,15-16=1/1,17-18=2/1,19=1/1,20=2/1,21-22=1/1,24=2/1,25-29=1/1"},
	} {
		c := preset("lowest")
		c.LayerBits = f.layers
		list = append(list, step{f.name, c, "layers of 1 to 3 bits, where they help most", ""})
	}
	return list
}
