// Command notice writes NOTICE: what is linked into bin/kvq and what ./scripts/setup fetches, with
// versions and licences. See ./scripts/notice.
package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"

	"github.com/kvqbook/kvqbook/internal/asset"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "notice:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	root, err := asset.Root()
	if err != nil {
		return err
	}
	text, err := notice(root)
	if err != nil {
		return err
	}
	path := filepath.Join(root, "NOTICE")
	switch {
	case len(args) == 0:
		return os.WriteFile(path, text, 0o644)
	case len(args) == 1 && args[0] == "--check":
		have, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if !bytes.Equal(have, text) {
			return fmt.Errorf("NOTICE is not what is linked and fetched: run ./scripts/notice")
		}
		return nil
	}
	return fmt.Errorf("want no arguments or --check, came %q", args)
}
