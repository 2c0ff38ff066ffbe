// Command quality makes docs/quality.md: what each step on the way from the tutorial's cache to the
// presets gave, measured on what the model says. scripts/quality runs it.
//
// Every row is stored as soon as it is measured, and a row that is stored is not measured again: a
// run that was cut off goes on where it was.
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/kvqbook/kvqbook/internal/asset"
	"github.com/kvqbook/kvqbook/internal/passkey"
	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama"
)

// version of the code that is measured; scripts/quality sets it when it builds.
var version = "unknown"

var tutorialConfig = kvq.Tutorial()

// options are the flags.
type options struct {
	backend, model, golden, unseen string
	results, out, only             string
	calibrate                      string
	list, write                    bool
	judge, quick                   bool
	long                           string
	atOnce, trials, keyBatch       int
	lengths                        []int
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := execute(ctx, parse())
	switch {
	case err == nil:
	case ctx.Err() != nil:
		fmt.Fprintln(os.Stderr, "quality: interrupted; the next call goes on from here")
		os.Exit(130)
	default:
		fmt.Fprintln(os.Stderr, "quality:", err)
		if usererr.Is(err) {
			os.Exit(2)
		}
		os.Exit(1)
	}
}

func parse() options {
	var o options
	flag.StringVar(&o.backend, "backend", "", "device to run on, as for kvq")
	flag.StringVar(&o.model, "model", "", "model (default: $KVQ_MODEL, else the small model of the set-up)")
	flag.StringVar(&o.golden, "golden", "", "folder with what transformers measured: ppl.json and texts/ (default: quality in $KVQ_GOLDENS or ../shared/goldens); \"none\" leaves it out")
	flag.StringVar(&o.unseen, "unseen", "docs/texts", "folder with texts that nobody tuned on; \"none\" leaves them out")
	flag.StringVar(&o.calibrate, "calibrate", calibrationTexts, "files to learn of the model's queries from, split at commas, for rows of calibrated feedback; not those that are judged")
	flag.StringVar(&o.results, "results", "", "file of measured rows, read and added to (default: docs/quality.jsonl; with --judge judged.jsonl beside it)")
	flag.StringVar(&o.out, "out", "", "file to write; a picture of the same name, .svg, goes beside it; without --judge, presets.svg and presets.json have the presets alone\n(default: docs/quality.md; with --judge judged.md beside it)")
	flag.BoolVar(&o.judge, "judge", false, "judge the presets by more than short texts: divergence by position, free generation, keys and tasks")
	flag.BoolVar(&o.quick, "quick", false, "with --judge: sizes that a CPU takes minutes for, to try it; --results and --out have to be given")
	flag.StringVar(&o.long, "long", longTexts, "with --judge: files that are joined and cut into long texts, split at commas")
	flag.StringVar(&o.only, "only", "", "names of rows to measure, with * for any part, split at commas (default: all)")
	flag.BoolVar(&o.list, "list", false, "list the rows and which of them are there, and measure nothing")
	flag.BoolVar(&o.write, "write", false, "write the document from the stored rows, and measure nothing")
	flag.IntVar(&o.atOnce, "jobs", 1, "rows to measure at a time: on a GPU 6 or so, since most of the time goes into compiling")
	flag.IntVar(&o.trials, "trials", 40, "texts with a passkey, of each length")
	flag.IntVar(&o.keyBatch, "batch", 10, "of these, read at a time; has to divide them")
	flag.Func("lengths", "tokens of texts with a passkey, split at commas; 0: none (default: 1024,2048,4096,7900)", func(s string) error {
		o.lengths = []int{}
		for field := range strings.SplitSeq(s, ",") {
			var n int
			if _, err := fmt.Sscan(field, &n); err != nil {
				return err
			}
			if n > 0 {
				o.lengths = append(o.lengths, n)
			}
		}
		return nil
	})
	flag.Parse()
	if o.lengths == nil {
		o.lengths = []int{1024, 2048, 4096, 7900}
	}
	return o
}

func execute(ctx context.Context, o options) error {
	if flag.NArg() > 0 {
		return usererr.New("argument %q, want flags alone", flag.Arg(0))
	}
	if o.atOnce < 1 || o.trials < 1 || o.keyBatch < 1 || o.trials%o.keyBatch != 0 {
		return usererr.New("--jobs %d --trials %d --batch %d, want at least 1 of each and trials in whole batches", o.atOnce, o.trials, o.keyBatch)
	}
	if o.model != "" { // its presets may have bits of single layers
		files, err := llama.Open(o.model)
		if err != nil {
			return err
		}
		measuredModel = files.Config()
	}
	if o.judge {
		return judge(ctx, o)
	}
	o.results, o.out = cmp.Or(o.results, "docs/quality.jsonl"), cmp.Or(o.out, "docs/quality.md")
	if o.golden == "" {
		dir, err := asset.Goldens()
		if err != nil {
			return usererr.New("%w; or give --golden", err)
		}
		o.golden = filepath.Join(dir, "quality")
	}
	jobs, err := makeJobs(o.lengths, o.only)
	if err != nil {
		return err
	}
	results, err := openStore(o.results)
	if err != nil {
		return err
	}
	if o.list || o.write {
		found, _ := results.newestRun()
		if o.list {
			return list(found, jobs)
		}
		if len(found.results) == 0 {
			return usererr.New("%s has no results to write", o.results)
		}
		return write(found, o)
	}
	base, err := measureAll(ctx, o, jobs, results)
	if base.Texts == "" {
		return err
	}
	// Also after a failure: what is there is worth reading.
	if written := write(results.run(base), o); err == nil {
		err = written
	}
	return err
}

// list tells which rows there are and how they came out.
func list(g run, jobs []job) error {
	fmt.Printf("stored: %d rows, %s, %s, version %s\n", len(g.results), g.base.Device, g.base.Model, g.base.Version)
	for _, j := range jobs {
		if r, ok := g.find(j); ok {
			fmt.Println(r)
		} else {
			fmt.Printf("%-36s -  %s\n", j.name(), j.step.config)
		}
	}
	return nil
}

// write writes the document and its picture; a golden that was missed is an error after that.
func write(g run, o options) error {
	var goldens map[string]goldenRow
	if o.golden != "none" {
		var err error
		if goldens, err = readGoldens(o.golden); err != nil {
			return err
		}
	}
	picture := strings.TrimSuffix(o.out, filepath.Ext(o.out)) + ".svg"
	for file, shown := range map[string]func(string) bool{picture: nil, filepath.Join(filepath.Dir(o.out), "presets.svg"): few} {
		drawing, err := g.picture(setUnseen, shown)
		if err != nil {
			return err
		}
		if drawing == nil {
			picture = ""
		} else if err := writeFile(file, drawing); err != nil {
			return err
		}
	}
	figures, err := g.presetFigures()
	if err != nil {
		return err
	}
	if err := writeFile(filepath.Join(filepath.Dir(o.out), "presets.json"), figures); err != nil {
		return err
	}
	text, outside := g.document(goldens, picture)
	if err := writeFile(o.out, text); err != nil {
		return err
	}
	if len(outside) > 0 {
		return fmt.Errorf("not within %.0f %% of the golden's perplexity and %.0f %% of its KL: %s (%s has the figures)", 100*perplexityWithin, 100*klWithin,
			strings.Join(outside, ", "), o.out)
	}
	return nil
}

// measureAll measures what the store lacks, and returns what its rows over texts have in common.
func measureAll(ctx context.Context, o options, jobs []job, results *store) (key, error) {
	b, err := newBench(o, results)
	if err != nil {
		return key{}, err
	}
	for _, set := range []struct{ name, dir string }{{setGolden, filepath.Join(o.golden, "texts")}, {setUnseen, o.unseen}} {
		if set.dir == "none" || set.dir == filepath.Join("none", "texts") {
			continue
		}
		texts, err := readTexts(b.tok, set.name, set.dir)
		if err != nil {
			return key{}, err
		}
		b.texts = append(b.texts, texts...)
	}
	for _, n := range o.lengths {
		if b.trials[n], err = passkey.Trials(ctx, b.tok, n, o.trials, 0); err != nil {
			return key{}, err
		}
	}
	if err := b.open(o); err != nil {
		return key{}, err
	}
	common := b.base
	common.Texts = hashOf(b.rows()...)
	missing, err := b.missing(jobs)
	if err != nil || len(missing) == 0 {
		return common, err
	}
	if err := b.load(ctx, len(missing), len(jobs)); err != nil {
		return common, err
	}
	// Nothing is freed: the program is about to end, and after an interruption calls that nobody
	// waits for may be under way.
	return common, b.run(ctx, missing, o.atOnce)
}
