// Package benchcmd is kvq bench: it times the quantized cache against the full-precision one.
//
// Each benchmark is a file named after what it times. Attention, decode, compile and growth time in
// this process. Prefill, memory and peers time processes of their own, which sides.go starts: this
// program again with the hidden command of serve.go, or another program that speaks the same lines
// of JSON (internal/bench).
package benchcmd

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/kvqbook/kvqbook/internal/asset"
	"github.com/kvqbook/kvqbook/internal/usererr"
)

// New returns the command bench with all benchmarks.
func New() *cobra.Command {
	c := &cobra.Command{
		Use:   "bench",
		Short: "Time the quantized cache against the full-precision one",
		Long: `bench times the quantized cache against the full-precision one on the same device, in alternation, and prints how many times faster it
is: the ratio of the shortest times, and the median ratio of runs that follow each other.`,
		Args: cobra.NoArgs,
		// Times of compiling are times of compiling.
		PersistentPreRunE: func(*cobra.Command, []string) error { return os.Setenv(asset.EnvCompiled, asset.Off) },
		RunE: func(c *cobra.Command, _ []string) error {
			return usererr.New("want one of: attention, decode, prefill, compile, start, growth, memory, peers")
		},
	}
	c.AddCommand(newAttention(), newDecode(), newPrefill(), newCompile(), newStart(), newGrowth(), newMemory(), newPeers(), newServe())
	return c
}
