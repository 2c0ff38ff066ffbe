// Package harm has the parts of ./scripts/soak about what can happen to files and processes:
// damaged files, kills, full disks, too little memory, a token that shows up somewhere.
package harm

import "github.com/kvqbook/kvqbook/internal/soak"

// Parts are the parts of this package.
var Parts = []soak.Part{fuzz, kill, disk, memory, token, vulnerabilities}
