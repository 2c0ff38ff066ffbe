package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/kvqbook/kvqbook/internal/cli"
)

func init() { register(newVersion) }

func newVersion() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "version",
		Short: "What this command was built from: version, commit, libraries",
		Long:  `version names this build and the libraries that decide about its results. A report of a bug should have it.`,
		Example: `  kvq version
  kvq version --json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if asJSON {
				return cli.PrintJSON(c.OutOrStdout(), cli.ReadBuild())
			}
			_, err := fmt.Fprintln(c.OutOrStdout(), "kvq", cli.Version())
			return err
		},
	}
	cli.RegisterJSON(c.Flags(), &asJSON)
	return c
}
