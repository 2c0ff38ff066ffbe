package main

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/kvqbook/kvqbook/device"
	"github.com/kvqbook/kvqbook/internal/cli"
	"github.com/kvqbook/kvqbook/internal/usererr"
)

func init() { register(newDevices) }

func newDevices() *cobra.Command {
	var backend string
	var asJSON bool
	c := &cobra.Command{
		Use:   "devices",
		Short: "What models can run on here, with a warning where there is no GPU",
		Long: `devices opens each kind of device and says what it found: XLA on the CPU, XLA on an NVIDIA GPU, and GoMLX's pure-Go backend
(far slower, and nothing to install). XLA needs Linux. The default is the one that runs without --backend.`,
		Example: `  kvq devices
  kvq devices --backend xla:cpu --json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runDevices(c, backend, asJSON) },
	}
	c.Flags().StringVar(&backend, "backend", "", "look at this `device` alone: xla:cpu, xla:cuda, go or xla:/path/to/plugin.so")
	cli.RegisterJSON(c.Flags(), &asJSON)
	return c
}

// deviceJSON is one device of devices --json.
type deviceJSON struct {
	Name     string   `json:"name"`
	Platform string   `json:"platform"`
	Version  string   `json:"pjrt_version,omitempty"`
	Plugin   string   `json:"plugin,omitempty"`
	Devices  []string `json:"devices"`
	Default  bool     `json:"default"`
	Error    string   `json:"error,omitempty"`
}

func runDevices(c *cobra.Command, backend string, asJSON bool) error {
	var infos []device.Info
	if backend != "" {
		info := device.Inspect(backend)
		if info.Err != nil {
			return usererr.New("%w", info.Err)
		}
		infos = []device.Info{info}
	} else {
		infos = device.List()
	}
	warning := device.Warning(infos)
	out := c.OutOrStdout()
	if asJSON {
		j := struct {
			Devices  []deviceJSON `json:"devices"`
			Warnings []string     `json:"warnings"`
		}{[]deviceJSON{}, []string{}}
		for _, info := range infos {
			d := deviceJSON{Name: info.Name, Platform: info.Platform, Version: info.Version, Plugin: info.Plugin,
				Devices: append([]string{}, info.Devices...), Default: info.Name == device.Default()}
			if info.Err != nil {
				d.Error = oneLine(info.Err)
			}
			j.Devices = append(j.Devices, d)
		}
		if warning != "" {
			j.Warnings = append(j.Warnings, warning)
		}
		return cli.PrintJSON(out, j)
	}
	for _, info := range infos {
		line := info.String()
		if info.Err != nil {
			line = "not here: " + line
		} else if info.Name == device.Default() {
			line += " (default)"
		}
		if _, err := fmt.Fprintln(out, line); err != nil {
			return err
		}
		for i, d := range info.Devices {
			fmt.Fprintf(out, "    %d: %s\n", i, d)
		}
		if n := len(info.Devices); n > 1 && !info.GPU() {
			fmt.Fprintf(out, "    one of them uses all %d processors; several are there to try --devices with\n", runtime.NumCPU())
		}
	}
	if warning != "" {
		fmt.Fprintln(c.ErrOrStderr(), "warning: "+warning)
	}
	return nil
}
