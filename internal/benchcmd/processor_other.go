//go:build !unix

package benchcmd

import "time"

// processorTime is for what XLA compiles, and there is no XLA here.
func processorTime() time.Duration { return 0 }
