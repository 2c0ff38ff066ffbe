//go:build !linux

package llama

func hugePages([]byte) {}
