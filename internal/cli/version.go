package cli

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
)

// Version names this build and the libraries whose versions decide about results.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "of unknown version, " + runtime.Version()
	}
	own := info.Main.Version
	if own == "" {
		own = "(devel)"
	}
	parts := []string{runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH}
	for _, dep := range info.Deps {
		switch dep.Path {
		case "github.com/gomlx/gomlx", "github.com/gomlx/compute", "github.com/gomlx/go-xla":
			parts = append(parts, strings.TrimPrefix(dep.Path, "github.com/gomlx/")+" "+dep.Version)
		}
	}
	return fmt.Sprintf("%s, %s", own, strings.Join(parts, ", "))
}
