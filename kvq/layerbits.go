package kvq

import (
	"strconv"
	"strings"

	"github.com/kvqbook/kvqbook/internal/usererr"
)

// layerBits is one override of Config.LayerBits: layers first to last get these bits.
type layerBits struct{ first, last, key, value int }

// parseLayerBits reads "0-1=8/6,29=6/4": layers 0 and 1 get 8 bits for keys and 6 for values, layer
// 29 gets 6 and 4.
func parseLayerBits(text string) ([]layerBits, error) {
	if text == "" {
		return nil, nil
	}
	var out []layerBits
	for part := range strings.SplitSeq(text, ",") {
		wrong := func() ([]layerBits, error) {
			return nil, usererr.New("kvq.Config.LayerBits: want entries like \"0-1=8/6\" (layers=key bits/value bits), got %q", part)
		}
		layers, bits, ok := strings.Cut(strings.TrimSpace(part), "=")
		key, value, ok2 := strings.Cut(bits, "/")
		if !ok || !ok2 {
			return wrong()
		}
		first, last, isRange := strings.Cut(layers, "-")
		if !isRange {
			last = first
		}
		var o layerBits
		for _, f := range []struct {
			text string
			to   *int
		}{{first, &o.first}, {last, &o.last}, {key, &o.key}, {value, &o.value}} {
			n, err := strconv.ParseUint(f.text, 10, 16)
			if err != nil {
				return wrong()
			}
			*f.to = int(n)
		}
		if o.last < o.first {
			return wrong()
		}
		out = append(out, o)
	}
	return out, nil
}

// checkLayers refuses bits for layers that a model does not have: nobody would get them.
func checkLayers(overrides []layerBits, layers int) error {
	for _, o := range overrides {
		if o.last < layers {
			continue
		}
		came := strconv.Itoa(o.first)
		if o.last != o.first {
			came += "-" + strconv.Itoa(o.last)
		}
		return usererr.New("kvq.Config.LayerBits: want layers 0 to %d, got %s", layers-1, came)
	}
	return nil
}
