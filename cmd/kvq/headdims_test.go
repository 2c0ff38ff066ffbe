package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/kvqbook/kvqbook/internal/testlane"
	"github.com/kvqbook/kvqbook/kvq"
)

// namedCaches are the tutorial's configuration, as no flags at all, and every preset.
func namedCaches(t *testing.T, headDim int) map[string]kvq.Config {
	t.Helper()
	configs := map[string]kvq.Config{"": kvq.Tutorial().For(headDim)}
	for _, name := range kvq.Presets() {
		c, err := kvq.PresetFor(name, headDim)
		if err != nil {
			t.Fatal(err)
		}
		configs["--preset "+name] = c
	}
	return configs
}

// Models with any head dimension run with plain commands. What is printed is the configuration that
// was used, and a line says where its groups are not those that were asked for.
func TestHeadDims(t *testing.T) {
	needsXLA(t)
	for _, dim := range []int{8, 16, 20, 32, 40, 48, 64, 72, 80, 96, 100, 112, 160} {
		model := tinyModel(t, func(c map[string]any) { c["head_dim"] = dim })
		for flags, want := range namedCaches(t, dim) {
			args := append(strings.Fields(flags), "--model", model, "--json")
			check := func(t *testing.T, status int, cache *cacheJSON, errs string) {
				t.Helper()
				if status != exitOK || cache.Config != want.String() {
					t.Errorf("status %d, cache %q, want %q; %s", status, cache.Config, want, errs)
				}
				noted := strings.Count(errs, fmt.Sprintf("they have to divide the head dimension %d\n", dim))
				if asked := asAsked(t, flags); noted > 1 || (noted == 1) != (asked != want) {
					t.Errorf("groups are noted %d times, asked for was %s, used is %s: %s", noted, asked, want, errs)
				}
			}
			t.Run(fmt.Sprintf("memory %s, heads of %d", flags, dim), func(t *testing.T) {
				status, out, errs := runKVQ(t, "", append([]string{"memory", "--measure=false"}, args...)...)
				j := parse[memoryJSON](t, out)
				check(t, status, &j.Cache, errs)
				for _, c := range j.Configurations {
					if c.Error != "" || c.Name == "as asked" {
						t.Errorf("%s: %s", c.Name, c.Error)
					}
				}
			})
			t.Run(fmt.Sprintf("generate %s, heads of %d", flags, dim), func(t *testing.T) {
				if flags != "" || dim != 20 {
					testlane.OnlyAll(t, "the tutorial's cache with heads of 20 stands for all")
				}
				testlane.Slow(t, "compiles a made-up model")
				args := append([]string{"generate", "--prompt", tinyText(5, 6, 7), "--max-new-tokens", "110", "--min-new-tokens", "110"}, args...)
				status, out, errs := runKVQ(t, "", args...)
				j := parse[generateJSON](t, out)
				check(t, status, j.Cache, errs)
				if n := len(j.Prompts[0].OutputIDs); n != 110 || j.Cache.Parts.Codes == 0 {
					t.Errorf("%d new tokens, %d bytes of codes, want 110 and some", n, j.Cache.Parts.Codes)
				}
			})
		}
	}
}

// asAsked is the configuration before it is fitted to a head dimension.
func asAsked(t *testing.T, flags string) kvq.Config {
	t.Helper()
	name, preset := strings.CutPrefix(flags, "--preset ")
	if !preset {
		return kvq.Tutorial()
	}
	c, err := kvq.Preset(name)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
