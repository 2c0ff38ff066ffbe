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
