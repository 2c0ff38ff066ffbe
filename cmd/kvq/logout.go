package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/kvqbook/kvqbook/hub"
)

func init() { register(newLogout) }

func newLogout() *cobra.Command {
	return withoutSecrets(&cobra.Command{
		Use:   "logout",
		Short: "Remove the stored token of the Hugging Face hub",
		Long: `logout removes the token that kvq login, or Hugging Face's own login, stored on this machine. The token itself stays valid:
https://huggingface.co/settings/tokens revokes it.`,
		Example: `  kvq logout`,
		RunE: func(c *cobra.Command, _ []string) error {
			path, err := hub.Logout()
			if err != nil {
				return err
			}
			message := "no token was stored"
			if path != "" {
				message = "removed " + path
			}
			warnOfVariable(c, "still logs you in")
			_, err = fmt.Fprintln(c.OutOrStdout(), message)
			return err
		},
	})
}
