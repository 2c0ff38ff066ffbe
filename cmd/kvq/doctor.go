package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kvqbook/kvqbook/internal/cli"
	"github.com/kvqbook/kvqbook/internal/doctor"
)

func init() { register(newDoctor) }

func newDoctor() *cobra.Command {
	var asJSON bool
	var try string
	c := &cobra.Command{
		Use:   "doctor",
		Short: "What of this machine is ready, what fails, and the cure",
		Long: `doctor looks at what notebooks and command need, one line each: [ok], [fails] with the cure, or [absent] for what is not there
and need not be. It runs a graph on each device, and works where set-up was done in part. It never shows a token.

Exit status 1 if something fails that is needed; GPU, kept graphs, hub and proxy are not.`,
		Example: `  kvq doctor
  kvq doctor --json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if try != "" {
				return cli.PrintJSON(c.OutOrStdout(), doctor.Try(try))
			}
			return runDoctor(c, asJSON)
		},
	}
	cli.RegisterJSON(c.Flags(), &asJSON)
	c.Flags().StringVar(&try, doctor.TryFlag, "", "")
	_ = c.Flags().MarkHidden(doctor.TryFlag) // it fails for no flag that exists
	return c
}

// doctorJSON is what doctor prints with --json.
type doctorJSON struct {
	Ready  bool             `json:"ready"` // nothing fails that is needed
	Checks []doctor.Finding `json:"checks"`
}

func runDoctor(c *cobra.Command, asJSON bool) error {
	status := cli.NewStatus(c.ErrOrStderr(), asJSON)
	defer status.Close()
	j := doctorJSON{}
	var bad []string
	for f := range doctor.Here().Examine(c.Context(), func(name string) { status.Stage("looking at: %s", name) }) {
		status.Clear()
		j.Checks = append(j.Checks, f)
		if f.State == doctor.Fails && f.Needed {
			bad = append(bad, f.Name)
		}
		if asJSON {
			continue
		}
		line := fmt.Sprintf("%-9s%-16s %s", "["+f.State+"]", f.Name, f.Found)
		if f.Cure != "" {
			line += ". Cure: " + f.Cure
		}
		if _, err := fmt.Fprintln(c.OutOrStdout(), line); err != nil {
			return err
		}
	}
	if err := c.Context().Err(); err != nil {
		return err
	}
	j.Ready = len(bad) == 0
	if asJSON {
		if err := cli.PrintJSON(c.OutOrStdout(), j); err != nil {
			return err
		}
	}
	if !j.Ready {
		return fmt.Errorf("not ready: %s", strings.Join(bad, ", "))
	}
	return nil
}
