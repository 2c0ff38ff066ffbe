// Command quality makes docs/quality.md: what each step on the way from the tutorial's cache to the presets gave, measured on what the
// model says. scripts/quality runs it.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gomlx/compute/dtypes"

	"github.com/kvqbook/kvqbook/device"
	"github.com/kvqbook/kvqbook/internal/asset"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama"
	"github.com/kvqbook/kvqbook/tokenizer"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "quality:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	backendName := flag.String("backend", "", "device to run on, as for kvq")
	model := flag.String("model", "", "model (default: the small model of the set-up)")
	out := flag.String("out", "docs/quality.md", "file to write")
	only := flag.String("only", "", "comma-separated names of rows to measure (default: all)")
	golden := flag.String("golden", "", "folder with the goldens' texts (default: ../shared/goldens/quality/texts)")
	unseen := flag.String("unseen", "docs/texts", "folder with texts that nobody tuned on; \"none\" leaves them out")
	flag.Parse()
	if *model == "" {
		var err error
		if *model, err = asset.SmallModel(); err != nil {
			return err
		}
	}
	if *golden == "" {
		dir, err := asset.Goldens()
		if err != nil {
			return err
		}
		*golden = filepath.Join(dir, "quality", "texts")
	}
	backend, err := device.Open(*backendName)
	if err != nil {
		return err
	}
	defer backend.Finalize()
	files, err := llama.Open(*model)
	if err != nil {
		return err
	}
	tok, err := files.Tokenizer()
	if err != nil {
		return err
	}
	// Rounded as the goldens' weights were, so that the rows for quanto can be compared with theirs.
	weights, err := files.LoadWeights(backend, dtypes.Float32, llama.WithContext(ctx), llama.RoundFloat16())
	if err != nil {
		return err
	}
	m, err := llama.NewModel(backend, files.Config(), weights)
	if err != nil {
		return err
	}
	defer m.Finalize()

	table := report{device: device.Describe(backend).String(), model: filepath.Base(*model)}
	for _, set := range []struct{ name, dir string }{{"golden", *golden}, {"unseen", *unseen}} {
		if set.dir == "none" {
			continue
		}
		texts, names, err := read(tok, set.dir)
		if err != nil {
			return err
		}
		chosen := steps
		if set.name == "unseen" {
			chosen = slices.DeleteFunc(slices.Clone(steps), func(s step) bool { return !s.unseen })
		}
		if *only != "" {
			chosen = slices.DeleteFunc(slices.Clone(chosen), func(s step) bool { return !slices.Contains(strings.Split(*only, ","), s.name) })
		}
		rows, err := measure(ctx, m, texts, chosen)
		if err != nil {
			return err
		}
		table.sets = append(table.sets, measured{set.name, names, rows})
	}
	return writeFile(*out, table.markdown())
}

// tokens of each text, and how many of them go in at once.
const tokensPerText, prefill = 576, 64

// read returns the first tokens of every text in a folder.
func read(tok *tokenizer.Tokenizer, dir string) (texts [][]int32, names []string, err error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.txt"))
	if err != nil || len(paths) == 0 {
		return nil, nil, fmt.Errorf("%s: want a folder with .txt files", dir)
	}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, nil, err
		}
		ids := tok.Encode(string(data))
		var row []int32
		for _, id := range ids[:min(len(ids), tokensPerText)] {
			row = append(row, int32(id))
		}
		texts, names = append(texts, row), append(names, filepath.Base(path))
	}
	return texts, names, nil
}

// row is one measured step.
type row struct {
	step                                  step
	bits, perplexity, reference, kl, top1 float64
	took                                  time.Duration
}

func measure(ctx context.Context, m *llama.Model, texts [][]int32, chosen []step) ([]row, error) {
	full, err := llama.NewGenerator(m, kvq.Config{})
	if err != nil {
		return nil, err
	}
	defer full.Finalize()
	var rows []row
	for _, s := range chosen {
		start := time.Now()
		g, err := llama.NewGenerator(m, s.config)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
		e, err := llama.Evaluate(ctx, full, g, texts, prefill, nil)
		g.Finalize()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
		c := m.Config()
		// Scales in 16 bits, as they would be beside a 16-bit model, where the configuration leaves it to the dtype of the cache.
		plan, err := kvq.New(s.config, kvq.Shape{Layers: c.Layers, Batch: 1, KVHeads: c.KVHeads, HeadDim: c.HeadDim, Capacity: 8192, DType: dtypes.Float16})
		if err != nil {
			return nil, err
		}
		all := llama.Join(e.Rows)
		r := row{step: s, bits: plan.BitsPerValue(), perplexity: all.Perplexity(), reference: llama.Join(e.Reference).Perplexity(),
			kl: llama.Mean(all.KL), top1: all.Agreement(), took: time.Since(start)}
		fmt.Fprintf(os.Stderr, "%-32s %.3f bits  perplexity %.3f (full %.3f)  KL %.5f  top-1 %.1f %%  %s\n", s.name, r.bits, r.perplexity, r.reference, r.kl, 100*r.top1,
			r.took.Round(time.Second))
		rows = append(rows, r)
	}
	return rows, nil
}

// writeFile writes through a temporary name, so that the old file stays whole until the new one is.
func writeFile(path string, data []byte) error {
	temporary := path + ".tmp"
	if err := os.WriteFile(temporary, data, 0o644); err != nil {
		return err
	}
	return os.Rename(temporary, path)
}

// report is everything measured.
type report struct {
	device, model string
	sets          []measured
}

type measured struct {
	name  string
	texts []string
	rows  []row
}

func (r report) markdown() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, preamble, r.model, r.device, time.Now().UTC().Format("2006-01-02"))
	for _, set := range r.sets {
		fmt.Fprintf(&b, "\n## %s\n\n%s: %s.\n", titles[set.name], fmt.Sprintf("%d texts", len(set.texts)), strings.Join(set.texts, ", "))
		if len(set.rows) == 0 {
			continue
		}
		fmt.Fprintf(&b, "Full precision: perplexity %.3f.\n\n", set.rows[0].reference)
		fmt.Fprintln(&b, "| cache | bits a value | perplexity | KL | of the tutorial's KL | top-1 | what it tells |")
		fmt.Fprintln(&b, "| --- | --- | --- | --- | --- | --- | --- |")
		tutorial := 0.0
		for _, row := range set.rows {
			if row.step.name == "tutorial" {
				tutorial = row.kl
			}
		}
		for _, row := range set.rows {
			part := ""
			if tutorial > 0 {
				part = fmt.Sprintf("%.3f", row.kl/tutorial)
			}
			fmt.Fprintf(&b, "| %s | %.3f | %.3f | %.5f | %s | %.1f %% | %s |\n", row.step.name, row.bits, row.perplexity, row.kl, part, 100*row.top1, row.step.note)
		}
	}
	return b.Bytes()
}

var titles = map[string]string{"golden": "The goldens' texts", "unseen": "Texts that nobody tuned on"}

const preamble = `# Quality

What caches cost, measured on what the model says: SmolLM2-135M (%s, weights rounded to float16, computed in float32) reads texts token by
token through the cache. 64 tokens of each go in at once, every token after them is predicted and scored. KL is the mean divergence of the
prediction from that with a full-precision cache, in nats; top-1 the share of tokens where both find the same token most likely. Bits a value
count codes, scales and zero points (16 bits each where the configuration does not say), keys and values averaged; window and sinks apart.

Made by ` + "`./scripts/quality`" + ` on %s, %s. Failures stay in the table.
`
