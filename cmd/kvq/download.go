package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/kvqbook/kvqbook/internal/cli"
	"github.com/kvqbook/kvqbook/internal/usererr"
)

func init() { register(newDownload) }

func newDownload() *cobra.Command {
	var revision string
	var offline, asJSON, quiet bool
	c := &cobra.Command{
		Use:   "download MODEL",
		Short: "Fetch a model from the Hugging Face hub",
		Long: `download fetches what --model needs of a model of the Hugging Face hub, its configuration, tokenizer and safetensors, and
prints the folder. A name with a file (org/name/model.gguf) fetches that file. The other commands do the same for a --model
that is no file or folder; this one gets it over with, and makes --offline work.

The files lie in the cache folder that Hugging Face's own tools use (HF_HUB_CACHE, HF_HOME, else ~/.cache/huggingface/hub).
A download that was interrupted goes on where it stopped. Each file is checked by the hash that the hub names.
Gated models want a token: kvq login.`,
		Example: `  kvq download HuggingFaceTB/SmolLM2-135M-Instruct
  kvq download meta-llama/Llama-2-7b-chat-hf --revision f5db02db724555f92da89c216ac04704f23d4590
  kvq download bartowski/SmolLM2-135M-Instruct-GGUF/SmolLM2-135M-Instruct-Q4_K_M.gguf --json`,
		Args: oneModel,
		RunE: func(c *cobra.Command, args []string) error {
			status := cli.NewStatus(c.ErrOrStderr(), quiet)
			defer status.Close()
			path, err := cli.FetchModel(c, status, args[0], revision, offline)
			if err != nil {
				return err
			}
			if asJSON {
				return cli.PrintJSON(c.OutOrStdout(), downloadJSON{args[0], path})
			}
			_, err = fmt.Fprintln(c.OutOrStdout(), path)
			return err
		},
	}
	cli.RegisterHub(c.Flags(), &revision, &offline)
	cli.RegisterQuiet(c.Flags(), &quiet)
	cli.RegisterJSON(c.Flags(), &asJSON)
	return c
}

// oneModel is how a command takes the name of a model.
func oneModel(c *cobra.Command, args []string) error {
	if len(args) != 1 {
		return usererr.New("%s: %d models, want one, such as meta-llama/Llama-2-7b-chat-hf", c.Name(), len(args))
	}
	return nil
}

// downloadJSON is what download prints with --json.
type downloadJSON struct {
	Model string `json:"model"` // as it was asked for
	Path  string `json:"path"`  // for --model; its last part is the commit
}
