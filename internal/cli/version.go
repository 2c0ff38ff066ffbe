package cli

import (
	"cmp"
	"runtime"
	"runtime/debug"
	"strings"

	"golang.org/x/mod/module"
)

// Release is the version of this module. The newest section of CHANGELOG.md has it, and the tag
// that publishes it.
const Release = "v0.1.0"

// commit is what scripts/setup built, by its -ldflags; "" where something else built it.
var commit string

// Build says what this program was built from, so that a report of a bug can name it.
type Build struct {
	// of this module: Release, and in a clone or between two versions whatever led there since;
	// Commit tells
	Version  string `json:"version"`
	Commit   string `json:"commit,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
	// versions of the libraries that decide about results, by module
	Libraries map[string]string `json:"libraries"`
}

// Libraries are the modules that Build names, in its order.
var Libraries = []string{"github.com/gomlx/gomlx", "github.com/gomlx/compute", "github.com/gomlx/go-xla"}

// ReadBuild reads what Go put into the program.
func ReadBuild() Build {
	b := Build{Version: Release, Commit: commit, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH, Libraries: map[string]string{}}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if rev, err := module.PseudoVersionRev(info.Main.Version); err == nil { // go install …@main
		b.Commit = cmp.Or(b.Commit, rev)
	}
	for _, s := range info.Settings { // go install reads git itself
		if s.Key == "vcs.revision" {
			b.Commit = cmp.Or(b.Commit, s.Value[:min(12, len(s.Value))])
		}
	}
	for _, dep := range info.Deps {
		for _, path := range Libraries {
			if dep.Path == path {
				b.Libraries[path] = dep.Version
			}
		}
	}
	return b
}

// Version is the build in one line.
func Version() string {
	b := ReadBuild()
	parts := []string{b.Version}
	if b.Commit != "" {
		parts[0] += " at " + b.Commit
	}
	parts = append(parts, b.Go, b.Platform)
	for _, path := range Libraries {
		if v := b.Libraries[path]; v != "" {
			parts = append(parts, strings.TrimPrefix(path, "github.com/gomlx/")+" "+v)
		}
	}
	return strings.Join(parts, ", ")
}
