package benchcmd

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/kvqbook/kvqbook/internal/bench"
	"github.com/kvqbook/kvqbook/internal/cli"
	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/llama"
)

// peersFlags are those of peers.
type peersFlags struct {
	sideFlags
	contexts []int
	prefill  int
	runs     int
	steps    int
	peers    []string
	presets  []string
	texts    []string
	markdown bool
	json     bool

	status *cli.Status
}

func newPeers() *cobra.Command {
	var f peersFlags
	c := &cobra.Command{
		Use:   "peers",
		Short: "This library against others, on the same model and prompt",
		Long: `peers runs this library with the tutorial's cache, a full-precision one and presets, and other programs, in alternation: each is a process
that has read the same prompt and then decodes --steps tokens at a time. A peer is a command that speaks the lines of JSON of
internal/bench/side.go; scripts/bench-peers brings transformers and llama.cpp. Rows are printed to standard error as they come.`,
		Example: `  kvq bench peers --text docs/texts/story.txt --contexts 512 --runs 3`,
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return f.run(c) },
	}
	fs := c.Flags()
	f.register(fs)
	fs.IntSliceVar(&f.contexts, "contexts", []int{512, 2048, 7900}, "tokens of the prompt; 0: none is decoded")
	fs.IntVar(&f.prefill, "prefill", 2048, "tokens of the prompt whose reading is timed; 0: none")
	fs.IntVar(&f.runs, "runs", 7, "counted runs of each, in alternation")
	fs.IntVar(&f.steps, "steps", 24, "tokens of one run")
	fs.StringArrayVar(&f.peers, "peer", nil, `another program, as "NAME=COMMAND ARGUMENT …" (repeat)`)
	fs.StringSliceVar(&f.presets, "presets", []string{"balanced"}, "presets to run beside the tutorial's cache")
	fs.StringSliceVar(&f.texts, "text", nil, "`files` whose text is the prompt, over and over")
	fs.BoolVar(&f.markdown, "markdown", false, "print a Markdown table")
	cli.UnderMore(fs, "markdown", "prefill")
	cli.RegisterJSON(fs, &f.json)
	return c
}

// peerRow is one side in one comparison; times are of a token in decode, of a prompt in prefill.
type peerRow struct {
	What   string                 `json:"what"` // decode or prefill
	Tokens int                    `json:"tokens"`
	Side   string                 `json:"side"`
	Min    float64                `json:"min_ms"`
	Median float64                `json:"median_ms"`
	Slower map[string]bench.Ratio `json:"times_slower"` // than each of ours
	Over   int64                  `json:"peak_over_before_bytes"`
	// of the process, since it began with this prompt
	Peak   int64 `json:"peak_bytes"`
	Device int64 `json:"device_bytes,omitempty"`
	// leading new tokens equal to those of our full-precision cache
	Same int `json:"same_tokens"`
	Made int `json:"new_tokens"`
}

// peersReport is what peers prints.
type peersReport struct {
	reportHead
	Runs  int       `json:"runs"`
	Steps int       `json:"steps"`
	Sides []string  `json:"sides"` // with versions
	Rows  []peerRow `json:"rows"`
	ours  []string  // quantized
}

func (r *peersReport) print(w io.Writer, f *peersFlags) error {
	f.status.Close()
	if f.json {
		return cli.PrintJSON(w, r)
	}
	header := table.Row{"what", "tokens", "side", "ms: min", "ms: median"}
	for _, name := range r.ours {
		header = append(header, name+" is times faster: min / median")
	}
	t := cli.NewTable(w, append(header, "peak over before MiB", "peak of the process MiB", "device MiB", "tokens as in our full precision"))
	for _, row := range r.Rows {
		line := table.Row{row.What, row.Tokens, row.Side, fmt.Sprintf("%.1f", row.Min), fmt.Sprintf("%.1f", row.Median)}
		for _, name := range r.ours {
			line = append(line, row.Slower[name].String())
		}
		t.AppendRow(append(line, mib(row.Over), mib(row.Peak), mib(row.Device), fmt.Sprintf("%d of %d", row.Same, row.Made)))
	}
	r.reportHead.print(w)
	fmt.Fprintf(w, "Batch 1, %d tokens a run, %d runs in alternation. %s.\n\n", r.Steps, r.Runs, strings.Join(r.Sides, "; "))
	renderTable(t, 3, f.markdown)
	return nil
}

// Names of our own sides.
const (
	fullSide     = "kvq full precision"
	tutorialSide = "kvq tutorial"
)

func (f *peersFlags) run(c *cobra.Command) error {
	f.status = f.model.Status(c.ErrOrStderr())
	defer f.status.Close()
	config, files, err := f.check(c)
	if err != nil {
		return err
	}
	prompts := map[int][]int32{}
	for _, n := range append(slices.Clone(f.contexts), f.prefill) {
		if n == 0 {
			continue
		}
		if prompts[n] = madeUpPrompt(config, 1, n)[0]; len(f.texts) > 0 && files != nil {
			if prompts[n], err = textPrompt(files, f.texts, n); err != nil {
				return err
			}
		}
	}
	report := &peersReport{Runs: f.runs, Steps: f.steps, ours: []string{tutorialSide}}
	for _, p := range f.presets {
		report.ours = append(report.ours, "kvq "+p)
	}
	sides, err := f.startAll(c)
	defer func() { closeSides(sides) }()
	if err != nil {
		return err
	}
	report.reportHead = newSideHead(c, sides[0])
	for _, s := range sides {
		report.Sides = append(report.Sides, describeSide(s))
	}
	outcome := cli.OutcomeOf(c.Context())
	outcome.OnInterrupt(func() { _ = report.print(c.OutOrStdout(), f) })
	take := func(rows []peerRow, err error) error {
		if err != nil {
			return err
		}
		f.status.Clear()
		return outcome.Update(func() error {
			for _, row := range rows {
				_ = json.NewEncoder(c.ErrOrStderr()).Encode(row)
			}
			report.Rows = append(report.Rows, rows...)
			return nil
		})
	}
	if f.prefill > 0 {
		if err := take(f.prefillRows(c, sides, report.ours, prompts[f.prefill])); err != nil {
			return err
		}
	}
	for _, n := range f.contexts {
		if n == 0 {
			continue
		}
		if err := take(f.decodeRows(c, sides, report.ours, prompts[n], config)); err != nil {
			return err
		}
	}
	return outcome.Print(func() error { return report.print(c.OutOrStdout(), f) })
}

func (f *peersFlags) check(c *cobra.Command) (llama.Config, *llama.Files, error) {
	config, files, err := f.config(c)
	if err != nil {
		return config, nil, err
	}
	if f.runs < 1 || f.steps < 1 || f.prefill < 0 {
		return config, nil, usererr.New("--runs %d, --steps %d, --prefill %d: want at least 1, 1 and 0", f.runs, f.steps, f.prefill)
	}
	for _, n := range append(slices.Clone(f.contexts), f.prefill) {
		if n < 0 || n > config.MaxPositions {
			return config, nil, usererr.New("a prompt of %d tokens, the model reads at most %d", n, config.MaxPositions)
		}
	}
	for _, p := range f.peers {
		if name, command, ok := strings.Cut(p, "="); !ok || name == "" || strings.TrimSpace(command) == "" {
			return config, nil, usererr.New(`--peer %q, want "NAME=COMMAND ARGUMENT …"`, p)
		}
	}
	return config, files, nil
}

// startAll starts our own sides and then the peers. On an error it returns those that it started.
func (f *peersFlags) startAll(c *cobra.Command) (sides []*bench.Side, err error) {
	model := f.args(c.Flags())
	ours := [][2]string{{fullSide, "--cache=full"}, {tutorialSide, "--cache=quantized"}}
	for _, p := range f.presets {
		ours = append(ours, [2]string{"kvq " + p, "--preset=" + p})
	}
	for _, one := range ours {
		f.status.Stage("starting a process that loads the model (%s)", one[0])
		s, err := kvqSide(c, one[0], append(slices.Clone(model), one[1])...)
		if err != nil {
			return sides, err
		}
		sides = append(sides, s)
	}
	for _, p := range f.peers {
		name, command, _ := strings.Cut(p, "=")
		f.status.Stage("starting %s", name)
		s, err := bench.StartSide(c.Context(), name, strings.Fields(command), c.ErrOrStderr())
		if err != nil {
			return sides, err
		}
		sides = append(sides, s)
	}
	return sides, nil
}

// describeSide names a peer with its versions; ours are in the head.
func describeSide(s *bench.Side) string {
	if _, own := s.Ready.Versions["kvq"]; own {
		return s.Name
	}
	var versions []string
	for _, name := range slices.Sorted(maps.Keys(s.Ready.Versions)) {
		versions = append(versions, name+" "+s.Ready.Versions[name])
	}
	return fmt.Sprintf("%s: %s", s.Name, strings.Join(versions, ", "))
}

// prefillRows times the reading of a prompt up to its first token.
func (f *peersFlags) prefillRows(c *cobra.Command, sides []*bench.Side, ours []string, ids []int32) ([]peerRow, error) {
	tally := newTally("prefill", len(ids), sides)
	what := fmt.Sprintf("the reading of %d tokens (the first run of each compiles)", len(ids))
	times, err := alternate(c.Context(), f.status, what, f.runs, sides, func() bench.Request {
		return bench.Request{Op: "prefill", IDs: [][]int32{ids}, Limit: 1}
	}, func(side int, r bench.Reply) {
		tally.peak(side, r)
		tally.tokens[side] = r.Tokens[0]
	})
	if err != nil {
		return nil, err
	}
	return tally.rows(times, ours), nil
}

// decodeRows lets every side read the prompt. Then the sides decode in alternation.
func (f *peersFlags) decodeRows(c *cobra.Command, sides []*bench.Side, ours []string, ids []int32, config llama.Config) ([]peerRow, error) {
	tally := newTally("decode", len(ids), sides)
	// A call of the device may make more tokens than a run asks for: those of a quarter of a
	// second. On a GPU that is more than a run, so there a call makes just one run.
	block := 0
	if sides[0].Ready.GPU {
		block = min(f.steps, 128)
	}
	limit := min(1+(f.runs+1)*(f.steps+16), config.MaxPositions-len(ids))
	f.status.Stage("compiling and reading %d tokens", len(ids))
	read, err := all(c.Context(), sides, bench.Request{Op: "prefill", IDs: [][]int32{ids}, Limit: limit, Block: block})
	if err != nil {
		return nil, err
	}
	for i, r := range read {
		tally.peak(i, r)
		tally.tokens[i] = r.Tokens[0]
	}
	times, err := alternate(c.Context(), f.status, fmt.Sprintf("decoding after %d tokens", len(ids)), f.runs, sides, func() bench.Request {
		return bench.Request{Op: "decode", Tokens: f.steps}
	}, func(side int, r bench.Reply) {
		tally.peak(side, r)
		tally.tokens[side] = append(tally.tokens[side], r.Tokens[0]...)
	})
	if err != nil {
		return nil, err
	}
	if _, err := all(c.Context(), sides, bench.Request{Op: "end"}); err != nil {
		return nil, err
	}
	return tally.rows(times, ours), nil
}

// tally is what one comparison has seen of each side besides times.
type tally struct {
	what   string
	prompt int
	sides  []*bench.Side
	tokens [][]int32 // made so far
	before []int64   // resident before the first run
	at     []int64   // peaks
}

func newTally(what string, prompt int, sides []*bench.Side) *tally {
	n := len(sides)
	return &tally{what: what, prompt: prompt, sides: sides, tokens: make([][]int32, n), before: make([]int64, n), at: make([]int64, n)}
}

func (t *tally) peak(side int, r bench.Reply) {
	if t.before[side] == 0 { // later ones hold what the allocator keeps
		t.before[side] = r.Before
	}
	t.at[side] = max(t.at[side], r.Peak)
}

func (t *tally) rows(times []bench.Times, ours []string) (rows []peerRow) {
	byName := map[string]bench.Times{}
	full := 0
	for i, s := range t.sides {
		byName[s.Name] = times[i]
		if s.Name == fullSide {
			full = i
		}
	}
	for i, s := range t.sides {
		n := min(len(t.tokens[i]), len(t.tokens[full]))
		same := 0
		for same < n && t.tokens[i][same] == t.tokens[full][same] {
			same++
		}
		row := peerRow{What: t.what, Tokens: t.prompt, Side: s.Name, Min: 1e3 * times[i].Min().Seconds(), Median: 1e3 * times[i].Median().Seconds(),
			Slower: map[string]bench.Ratio{}, Over: t.at[i] - t.before[i], Peak: t.at[i], Device: s.Device, Same: same, Made: n}
		for _, name := range ours {
			row.Slower[name] = byName[name].Faster(times[i])
		}
		rows = append(rows, row)
	}
	return rows
}
