package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/gomlx/compute/dtypes"
	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/kvqbook/kvqbook/internal/cli"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama"
	"github.com/kvqbook/kvqbook/tokenizer"
)

func init() { register(newShow) }

func newShow() *cobra.Command {
	var model cli.ModelFlags
	var asJSON bool
	c := &cobra.Command{
		Use:   "show [MODEL]",
		Short: "What a model is: architecture, context, element types, tokens, template, caches",
		Long: `show says what the files of a model say, without loading weights: its architecture, how long a text it reads, how its
weights are stored, its special tokens and whether it has a chat template. Below, what a token takes in each cache.`,
		Example: `  kvq show
  kvq show meta-llama/Llama-2-7b-chat-hf --offline
  kvq show model.gguf --json`,
		Args: oneText,
		RunE: func(c *cobra.Command, args []string) error {
			if err := model.Take(args); err != nil {
				return err
			}
			files, err := model.Open(c)
			if err != nil {
				return err
			}
			s := describe(files)
			if asJSON {
				return cli.PrintJSON(c.OutOrStdout(), s)
			}
			return s.print(c.OutOrStdout())
		},
	}
	model.RegisterFiles(c.Flags())
	cli.RegisterJSON(c.Flags(), &asJSON)
	return c
}

// shownJSON is what show prints with --json.
type shownJSON struct {
	Model         string         `json:"model"`
	Architecture  string         `json:"architecture"`
	Parameters    int64          `json:"parameters"`
	Layers        int            `json:"layers"`
	Hidden        int            `json:"hidden_size"`
	Inner         int            `json:"intermediate_size"`
	Heads         int            `json:"heads"`
	KVHeads       int            `json:"key_value_heads"`
	HeadDim       int            `json:"head_dim"`
	Context       int            `json:"context"`
	SlidingWindow int            `json:"sliding_window,omitempty"`
	Vocabulary    int            `json:"vocabulary"`
	Begins        string         `json:"bos_token,omitempty"`
	Ends          []string       `json:"eos_tokens"`
	Template      bool           `json:"chat_template"`
	NoTokenizer   string         `json:"tokenizer_error,omitempty"` // why there is none
	Weights       []elementsJSON `json:"weights"`
	Caches        []perTokenJSON `json:"caches"`
}

type elementsJSON struct {
	Type    string `json:"type"`
	Tensors int    `json:"tensors"`
	Bytes   int64  `json:"bytes"`
}

// perTokenJSON is what a token takes in a cache. Scales have 16 bits where the configuration does
// not say, as on a GPU.
type perTokenJSON struct {
	Name  string  `json:"name"`
	Bits  float64 `json:"bits_per_value,omitempty"`
	Bytes float64 `json:"bytes_per_token,omitempty"` // once it is in codes
	Error string  `json:"error,omitempty"`           // why the model cannot have it
}

func describe(files *llama.Files) shownJSON {
	c := files.Config()
	s := shownJSON{
		Model: files.Path(), Architecture: c.Architecture, Parameters: c.ParameterCount(), Layers: c.Layers, Hidden: c.HiddenSize, Inner: c.IntermediateSize,
		Heads: c.Heads, KVHeads: c.KVHeads, HeadDim: c.HeadDim, Context: c.MaxPositions, SlidingWindow: c.SlidingWindow, Vocabulary: c.VocabSize,
		Ends: []string{},
	}
	if tok, err := files.Tokenizer(); err != nil {
		s.NoTokenizer = oneLine(err) // the model is there all the same
	} else {
		name := func(id int) string { return tok.Decode([]tokenizer.Token{tokenizer.Token(id)}, false) }
		s.Template = tok.ChatTemplate() != ""
		if c.BOS >= 0 {
			s.Begins = name(c.BOS)
		}
		for _, id := range c.EOS {
			s.Ends = append(s.Ends, name(id))
		}
	}
	for _, e := range files.Elements() {
		s.Weights = append(s.Weights, elementsJSON{e.Type, e.Tensors, e.Bytes})
	}
	for _, n := range known(kvq.Config{}, c) {
		entry := perTokenJSON{Name: n.name}
		plan, err := cli.PlanFor(n.config, c, 1, c.MaxPositions, dtypes.Float16)
		if err != nil {
			entry.Error = oneLine(err)
		} else {
			entry.Bits = plan.BitsPerValue()
			entry.Bytes = entry.Bits / 8 * float64(2*c.Layers*c.KVHeads*c.HeadDim)
		}
		s.Caches = append(s.Caches, entry)
	}
	return s
}

func (s shownJSON) print(w io.Writer) error {
	number := func(n int) string { return humanize.Comma(int64(n)) }
	var weights []string
	for _, e := range s.Weights {
		weights = append(weights, fmt.Sprintf("%s %s in %d tensors", e.Type, cli.InUnits(e.Bytes), e.Tensors))
	}
	context := number(s.Context) + " tokens"
	if s.SlidingWindow > 0 {
		context += fmt.Sprintf(", of which a token sees the newest %s", number(s.SlidingWindow))
	}
	template := "none: --chat does not work"
	if s.Template {
		template = "there is one, for --chat"
	}
	quoted := func(texts ...string) string {
		for i := range texts {
			texts[i] = fmt.Sprintf("%q", texts[i])
		}
		return strings.Join(texts, ", ")
	}
	tokens := number(s.Vocabulary)
	if s.Begins != "" {
		tokens += ", begins with " + quoted(s.Begins)
	}
	if len(s.Ends) > 0 {
		tokens += ", ends with " + quoted(s.Ends...)
	}
	if s.NoTokenizer != "" {
		tokens += "; no tokenizer: " + s.NoTokenizer
	}
	for _, line := range [][2]string{
		{"model", s.Model},
		{"architecture", fmt.Sprintf("%s, %s parameters in %d layers of %s (inner %s)", s.Architecture, humanize.Comma(s.Parameters), s.Layers, number(s.Hidden), number(s.Inner))},
		{"attention", fmt.Sprintf("%d query heads, %d key/value heads, of %d", s.Heads, s.KVHeads, s.HeadDim)},
		{"context", context},
		{"weights", strings.Join(weights, ", ")},
		{"tokens", tokens},
		{"chat template", template},
	} {
		if _, err := fmt.Fprintf(w, "%-14s %s\n", line[0], cli.Printable(line[1])); err != nil {
			return err
		}
	}
	fmt.Fprintln(w)
	t := cli.NewTable(w, table.Row{"cache", "bits a value", "a token in codes"})
	for _, c := range s.Caches {
		if c.Error != "" {
			t.AppendRow(table.Row{c.Name, "-", "not for this model: " + c.Error})
			continue
		}
		t.AppendRow(table.Row{c.Name, fmt.Sprintf("%.4g", c.Bits), humanize.IBytes(uint64(c.Bytes))})
	}
	t.Render()
	_, err := fmt.Fprintln(w, "in 16-bit floats, with 16-bit scales, as on a GPU; kvq presets says more")
	return err
}
