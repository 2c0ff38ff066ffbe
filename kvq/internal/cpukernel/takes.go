package cpukernel

import (
	"fmt"

	"github.com/kvqbook/kvqbook/kvq/internal/codes"
)

// What shared.h has room for.
const (
	mostDim    = 512 // channels of a head
	mostGroups = 64  // of a token and head
)

// Takes says why the function does not attend to keys and values of these formats, in a few words;
// "": it does. Their codes are packed and fill words group by group.
func Takes(key, value codes.Format) string {
	for _, f := range []codes.Format{key, value} {
		if reason := takes(f); reason != "" {
			return reason
		}
	}
	return ""
}

func takes(f codes.Format) string {
	switch {
	case f.HeadDim > mostDim:
		return fmt.Sprintf("head dimension %d, at most %d can be", f.HeadDim, mostDim)
	case f.Groups() > mostGroups:
		return fmt.Sprintf("%d groups a head, at most %d can be", f.Groups(), mostGroups)
	case f.PerChannel && f.Group%codes.BlockTokens != 0:
		return fmt.Sprintf("groups of %d tokens, multiples of %d can be", f.Group, codes.BlockTokens)
	}
	return ""
}
