package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/kvqbook/kvqbook/hub"
	"github.com/kvqbook/kvqbook/internal/cli"
)

func init() { register(newWhoAmI) }

func newWhoAmI() *cobra.Command {
	var asJSON bool
	c := withoutSecrets(&cobra.Command{
		Use:     "whoami",
		Short:   "Name the account of the Hugging Face hub that is in use",
		Long:    `whoami asks the hub whose token is in use, and says where that token is: in the environment or in a file.`,
		Example: `  kvq whoami`,
		RunE: func(c *cobra.Command, _ []string) error {
			account, err := hub.WhoAmI(c.Context(), "")
			if err != nil {
				return err
			}
			if asJSON {
				return cli.PrintJSON(c.OutOrStdout(), whoAmIJSON{account.Name, account.Source})
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "%s (token from %s)\n", account.Name, account.Source)
			return err
		},
	})
	cli.RegisterJSON(c.Flags(), &asJSON)
	return c
}

// whoAmIJSON is what whoami prints with --json.
type whoAmIJSON struct {
	Name   string `json:"name"`
	Source string `json:"token_from"` // a variable, or a path
}
