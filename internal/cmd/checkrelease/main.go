// Command checkrelease looks at the commit HEAD as go get and pkg.go.dev would:
// ./scripts/check-release.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/mod/module"

	"github.com/kvqbook/kvqbook/internal/asset"
	"github.com/kvqbook/kvqbook/internal/cli"
)

func main() {
	quick := flag.Bool("quick", false, "leave out what takes minutes: go get, go vet and go install of the zip")
	flag.Parse()
	root, err := asset.Root()
	if err != nil {
		fmt.Fprintln(os.Stderr, "check-release:", err)
		os.Exit(1)
	}
	scratch, err := os.MkdirTemp("", "check-release-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "check-release:", err)
		os.Exit(1)
	}
	// What is looked at is the commit, as a clone has it.
	clone := filepath.Join(scratch, "clone")
	if out, err := exec.Command("git", "clone", "--quiet", "--shared", root, clone).CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "check-release: git clone: %v: %s\n", err, out)
		os.Exit(1)
	}
	ok := run(clone, scratch, *quick)
	if err := removeAll(scratch); err != nil {
		fmt.Fprintln(os.Stderr, "check-release:", err)
		ok = false
	}
	if !ok {
		os.Exit(1)
	}
}

// run makes all checks, says what each found, and reports whether all passed.
func run(root, scratch string, quick bool) bool {
	version := module.Version{Path: asset.Module, Version: cli.Release}
	zip := filepath.Join(scratch, "module.zip")
	passed := true
	for _, c := range []struct {
		name string
		slow bool
		look func() (found string, err error)
	}{
		{"CHANGELOG.md and the version", false, func() (string, error) { return changelog(root) }},
		{"go.mod", false, func() (string, error) { return modFile(root) }},
		{"module zip", false, func() (string, error) { return makeZip(root, version, zip) }},
		{"licence", false, func() (string, error) { return licence(zip, version) }},
		{"packages", false, func() (string, error) { return packages(root) }},
		{"go get, build, vet, install", true, func() (string, error) { return depend(root, scratch, zip, version) }},
		{"workflow", true, func() (string, error) { return workflow(root) }},
	} {
		if c.slow && quick {
			fmt.Printf("left out  %s\n", c.name)
			continue
		}
		found, err := c.look()
		if err != nil {
			passed = false
			fmt.Printf("FAILS     %s: %v\n", c.name, err)
			continue
		}
		fmt.Printf("ok        %s: %s\n", c.name, found)
	}
	return passed
}
