package main

import (
	"fmt"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/kvqbook/kvqbook/hub"
	"github.com/kvqbook/kvqbook/internal/cli"
)

func init() { register(newList); register(newRemove) }

// storedJSON is one model of list --json.
type storedJSON struct {
	Model    string `json:"model"`
	Bytes    int64  `json:"bytes"`
	Partial  int64  `json:"partial_bytes"` // of downloads that were cut off
	Complete bool   `json:"complete"`
}

func newList() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "The hub's models that are on this machine",
		Long: `list names the models in the cache folder that Hugging Face's own tools use too ($HF_HUB_CACHE), with the disk that they
take. --model takes their names. A download that was cut off goes on where it stopped with kvq download.`,
		Example: `  kvq list
  kvq list --json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			dir, err := hub.CacheDir()
			if err != nil {
				return err
			}
			models, err := hub.List(dir)
			if err != nil {
				return err
			}
			if asJSON {
				list := []storedJSON{}
				for _, m := range models {
					list = append(list, storedJSON{m.Repo, m.Bytes, m.Partial, m.Complete})
				}
				return cli.PrintJSON(c.OutOrStdout(), list)
			}
			if len(models) == 0 {
				_, err := fmt.Fprintf(c.OutOrStdout(), "no models in %s; kvq download NAME fetches one\n", dir)
				return err
			}
			t := cli.NewTable(c.OutOrStdout(), table.Row{"model", "disk", "state"})
			for _, m := range models {
				state := "ready"
				switch {
				case !m.Complete && m.Partial > 0:
					state = "download cut off at " + cli.InUnits(m.Partial)
				case !m.Complete:
					state = "not whole"
				}
				t.AppendRow(table.Row{m.Repo, cli.InUnits(m.Bytes), state})
			}
			t.Render()
			return nil
		},
	}
	cli.RegisterJSON(c.Flags(), &asJSON)
	return c
}

func newRemove() *cobra.Command {
	return &cobra.Command{
		Use:   "rm MODEL",
		Short: "Remove a model of the hub from this machine",
		Long: `rm removes a model from the cache folder that Hugging Face's own tools use too: all of its revisions, and what is left of
downloads that were cut off. kvq list names the models.`,
		Example: `  kvq rm meta-llama/Llama-2-7b-chat-hf`,
		Args:    oneModel,
		RunE: func(c *cobra.Command, args []string) error {
			m, err := hub.Remove(args[0], "")
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "removed %s: %s\n", m.Repo, cli.InUnits(m.Bytes))
			return err
		},
	}
}
