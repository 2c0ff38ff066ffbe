package benchcmd

import (
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/kvqbook/kvqbook/device"
	"github.com/kvqbook/kvqbook/internal/bench"
	"github.com/kvqbook/kvqbook/internal/cli"
)

// reportHead says what was run, on what, when: the head of every benchmark's report.
type reportHead struct {
	Command  string `json:"command"`
	Device   string `json:"device"`
	CPU      string `json:"cpu"`
	Versions string `json:"versions"`
	Date     string `json:"date"`
}

func newReportHead(c *cobra.Command, info device.Info) reportHead {
	h := reportHead{Command: commandLine(c), Device: deviceName(info), CPU: bench.CPU(), Date: time.Now().UTC().Format("2006-01-02")}
	// without this library's own, which is that of the file's commit
	_, h.Versions, _ = strings.Cut(cli.Version(), ", ")
	if info.Version != "" {
		h.Versions += ", PJRT " + info.Version
	}
	return h
}

// deviceName is XLA's name of the first device, on a CPU its platform.
func deviceName(info device.Info) string {
	if info.GPU() && len(info.Devices) > 0 {
		return info.Devices[0]
	}
	return info.Name
}

// commandLine is what to type to run the command again: its flags as given, without those that say
// how to print. Files are given by name alone.
func commandLine(c *cobra.Command) string {
	line := []string{c.CommandPath()}
	c.Flags().Visit(func(f *pflag.Flag) {
		value := f.Value.String()
		switch f.Name {
		case "markdown", "json", "plot", "peer": // peers name themselves in the rows
			return
		case "model", "text":
			value = filepath.Base(strings.Trim(value, "[]"))
		}
		if f.Value.Type() == "intSlice" || f.Value.Type() == "stringSlice" {
			value = strings.Trim(value, "[]")
		}
		if value == "" || strings.ContainsAny(value, " \t;") {
			value = `"` + value + `"`
		}
		line = append(line, "--"+f.Name+" "+value)
	})
	return strings.Join(line, " ")
}

func (h reportHead) print(w io.Writer) {
	fmt.Fprintf(w, "`%s`, %s; %s; %s; %s. ", h.Command, h.Date, h.Device, h.CPU, h.Versions)
}

// renderTable prints a table for people, each part of which begins with its first keys columns, or
// as Markdown.
func renderTable(t *cli.Table, keys int, markdown bool) {
	if markdown {
		t.Markdown()
		return
	}
	t.Keys(keys).Render()
}

// orNothing prints what is not 0.
func orNothing(format string, x float64) string {
	if x == 0 {
		return ""
	}
	return fmt.Sprintf(format, x)
}

// newSideHead is the head of a report about processes that this program started.
func newSideHead(c *cobra.Command, s *bench.Side) reportHead {
	return newReportHead(c, device.Info{Name: s.Ready.Device, Version: s.Ready.Versions["pjrt"]})
}
