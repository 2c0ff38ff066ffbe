package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"

	"github.com/dustin/go-humanize"
	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/kvqbook/kvqbook/internal/cli"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama"
)

// configuredJSON is what a configuration would take.
type configuredJSON struct {
	Name         string  `json:"name"`
	Config       string  `json:"config"`
	BitsPerValue float64 `json:"bits_per_value"`
	Bytes        int64   `json:"bytes"`
	Exact        int64   `json:"exact_bytes"` // of these, window and sinks
	WithWeights  int64   `json:"bytes_with_weights"`
	// that fits with so many rows; 0 when not even one token does
	LongestContext *int   `json:"longest_context,omitempty"`
	MostRows       *int   `json:"most_rows,omitempty"` // that fit with so long a context
	Error          string `json:"error,omitempty"`     // why the model cannot have it

	bits cli.Bits
}

// named is a configuration with a name.
type named struct {
	name   string
	config kvq.Config
}

// known lists the configurations worth a look for a model: the one asked for among them.
func known(asked kvq.Config, model llama.Config) []named {
	var list []named
	for _, name := range cli.PresetNames() {
		if c, err := cli.PresetFor(name, model); err == nil { // each of them has one
			if name == cli.FullName {
				name = "full precision"
			}
			list = append(list, named{name, c})
		}
	}
	for _, n := range list {
		if n.config == asked {
			return list
		}
	}
	return append([]named{{"as asked", asked}}, list...)
}

// configure compares the configurations with what there is.
func (j *memoryJSON) configure() {
	j.Configurations = nil
	for _, c := range known(j.asked, j.request.Model) {
		j.Configurations = append(j.Configurations, j.configured(c.name, c.config))
	}
	slices.SortStableFunc(j.Configurations, func(a, b configuredJSON) int { return cmp.Compare(b.BitsPerValue, a.BitsPerValue) })
	if j.Room != nil {
		fits := j.Needs.Total() <= j.Room.Bytes
		j.Fits = &fits
	}
}

// configured says what a configuration would take.
func (j *memoryJSON) configured(name string, config kvq.Config) configuredJSON {
	c := configuredJSON{Name: name, Config: config.String()}
	plan, err := cli.PlanFor(config, j.request.Model.Share(j.Devices), j.Batch, j.Context, j.dtype)
	if err != nil {
		c.Error = oneLine(err)
		return c
	}
	m := plan.Memory()
	c.BitsPerValue, c.Bytes, c.Exact = plan.BitsPerValue(), m.Total(), m.Window+m.Sinks
	if c.bits, err = cli.BitsOf(config, j.request.Model, j.dtype); err != nil {
		c.Error = oneLine(err)
		return c
	}
	c.WithWeights = c.Bytes + j.Weights.Bytes
	if j.Room == nil {
		return c
	}
	fits := func(rows, context int) bool {
		r := j.request
		r.Cache, r.Batch, r.Prompt, r.Capacity = config, rows, context, context
		n, err := r.Needs(j.widened)
		return err == nil && n.Total() <= j.Room.Bytes
	}
	longest := cli.MostThatFits(j.request.Model.MaxPositions, func(n int) bool { return fits(j.Batch, n) })
	rows := cli.MostThatFits(mostRows, func(n int) bool { return fits(n, j.Context) })
	c.LongestContext, c.MostRows = &longest, &rows
	return c
}

// mostRows is as many rows as are looked for.
const mostRows = 1 << 16

// mostText tells how many fit.
func mostText(n, all int, more string) string {
	switch n {
	case 0:
		return "none fits"
	case all:
		return humanize.Comma(int64(n)) + more
	}
	return humanize.Comma(int64(n))
}

// printConfigurations prints what the configurations would take, and what fits with each of them.
func (j *memoryJSON) printConfigurations(w io.Writer, positions int) {
	t := cli.NewTable(w, table.Row{"configuration", "bits a value", "cache", "window", "with weights", "of full"})
	for _, c := range j.Configurations {
		if c.Error != "" {
			t.AppendRow(table.Row{c.Name, "-", "not for this model", "-", "-", "-"})
			continue
		}
		window := "-"
		if c.Exact > 0 {
			window = cli.InUnits(c.Exact)
		}
		t.AppendRow(table.Row{c.Name, c.bits.String(), cli.InUnits(c.Bytes), window, cli.InUnits(c.WithWeights),
			fmt.Sprintf("%.1f %%", 100*float64(c.Bytes)/float64(j.Cache.FullBytes))})
	}
	t.Render()
	for _, c := range j.Configurations {
		if note := c.bits.Note(c.Name); note != "" {
			fmt.Fprintln(w, note)
		}
	}
	if j.Room == nil {
		return
	}
	fmt.Fprintf(w, "\nin %s (%s):\n", cli.InUnits(j.Room.Bytes), j.Room.Source)
	t = cli.NewTable(w, table.Row{"configuration", "longest context", "most rows"})
	for _, c := range j.Configurations {
		if c.LongestContext != nil {
			t.AppendRow(table.Row{c.Name, mostText(*c.LongestContext, positions, " (all that the model reads)"), mostText(*c.MostRows, mostRows, " or more")})
		}
	}
	t.Render()
}

// printFit tells whether it fits.
func (j *memoryJSON) printFit(w io.Writer) {
	n := j.Needs
	fmt.Fprintf(w, "needs:   weights %s + cache %s + work %s (%s; predicted) = %s\n", cli.InUnits(n.Weights), cli.InUnits(n.Cache.Total()), cli.InUnits(n.Work), n.For, cli.InUnits(n.Total()))
	if c := j.Compiled; c != nil {
		fmt.Fprintf(w, "XLA:     temporaries of %s for the prompt, %s for a step; %s of the cache written in place\n",
			cli.ByteCount(c.Prompt.Temporary), cli.ByteCount(c.Step.Temporary), cli.ByteCount(c.Step.Reused))
	}
	if j.Room != nil {
		verdict := "it fits"
		if !*j.Fits {
			verdict = "it does not fit"
		}
		fmt.Fprintf(w, "room:    %s (%s): %s\n", cli.InUnits(j.Room.Bytes), j.Room.Source, verdict)
	}
	fmt.Fprintln(w)
}
