// Command buildcache is the build cache of a clone that several people share: GOCACHEPROG in the
// kernel's environment.
//
//	GOCACHEPROG="buildcache FOLDER" go build .
//
// FOLDER is read, the user's own cache is read and written.
package main

import (
	"fmt"
	"os"

	"github.com/kvqbook/kvqbook/internal/buildcache"
	"github.com/kvqbook/kvqbook/internal/trust"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "buildcache:", err)
		os.Exit(1)
	}
}

func run() error {
	if len(os.Args) != 2 {
		return fmt.Errorf("wanted one argument, the shared folder, came %d", len(os.Args)-1)
	}
	own, err := buildcache.Own()
	if err != nil {
		return err
	}
	// Whose program this is can have the user run anything already.
	owners := trust.Me().And(0)
	if self, err := os.Executable(); err == nil {
		if info, err := os.Stat(self); err == nil {
			owners = owners.And(trust.OwnerOf(info))
		}
	}
	cache, err := buildcache.Open(os.Args[1], own, owners)
	if err != nil {
		fmt.Fprintf(os.Stderr, "buildcache: %v: it is not read, and everything is compiled anew\n", err)
	}
	return cache.Serve(os.Stdin, os.Stdout)
}
