package modelfile

import (
	"fmt"
	"strings"

	"github.com/kvqbook/kvqbook/internal/usererr"
)

// CheckDevices says whether n devices can share a model: its key/value heads and its feed-forward
// width have to be multiples of n.
func (c Config) CheckDevices(n int) error {
	if n < 1 {
		return usererr.New("%d devices, want at least 1", n)
	}
	var cannot string
	switch {
	case c.KVHeads%n != 0:
		cannot = fmt.Sprintf("%d key/value heads", c.KVHeads)
	case c.IntermediateSize%n != 0:
		cannot = fmt.Sprintf("a feed-forward width of %d", c.IntermediateSize)
	default:
		return nil
	}
	var can []string
	for k := 1; k <= c.KVHeads; k++ {
		if c.KVHeads%k == 0 && c.IntermediateSize%k == 0 {
			can = append(can, fmt.Sprint(k))
		}
	}
	return usererr.New("the model has %s, which %d devices cannot share; want one of: %s", cannot, n, strings.Join(can, ", "))
}

// Share is the model that one of n devices computes: its heads and its part of the feed-forward
// width. It says what a device holds ([Config.ParameterCount], and the shape of its cache), for a
// number of devices that [Config.CheckDevices] accepts.
func (c Config) Share(n int) Config {
	c.Heads, c.KVHeads, c.IntermediateSize = c.Heads/n, c.KVHeads/n, c.IntermediateSize/n
	return c
}
