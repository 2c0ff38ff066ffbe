//go:build !linux || !cgo

package cpukernel

import "github.com/gomlx/compute"

// Lacks says why the graphs of a backend on a CPU cannot call the function.
func Lacks(compute.Backend) string { return "a program without XLA" }
