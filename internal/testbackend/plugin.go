package testbackend

import (
	"fmt"
	"os"
)

// plugin returns the path of the XLA CPU plugin.
func plugin() (string, error) {
	path := os.Getenv("KVQ_PLUGIN_CPU")
	if path == "" {
		return "", fmt.Errorf("KVQ_PLUGIN_CPU is not set; run ./scripts/setup")
	}
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("XLA CPU plugin: %w; run ./scripts/setup", err)
	}
	return path, nil
}
