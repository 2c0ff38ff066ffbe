// Command randomllama writes a model of Llama-2-7B's exact layout with random weights, or a smaller
// one: what kvq does with the real one, it does with this, with no licence and no download.
//
//	go run ./internal/cmd/randomllama -out /tmp/random7b            13.5 GB
//	go run ./internal/cmd/randomllama -out /tmp/random -scale 8     90 MB
package main

import (
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/kvqbook/kvqbook/internal/randomllama"
	"github.com/kvqbook/kvqbook/internal/usererr"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "randomllama:", err)
		if usererr.Is(err) {
			os.Exit(2)
		}
		os.Exit(1)
	}
}

func run() error {
	out := flag.String("out", "", "folder to write")
	scale := flag.Int("scale", 1, "divide layers, heads and widths by 1, 2, 4, 8, 16 or 32")
	shards := flag.Int("shards", 3, "files of weights")
	seed := flag.Uint64("seed", 1, "of the weights")
	tokenizer := flag.String("tokenizer", "tokenizer/testdata/llama2-tokenizer.json.gz", "a gzipped tokenizer.json of Llama-2's vocabulary")
	flag.Parse()
	if *out == "" {
		return usererr.New("want -out FOLDER")
	}
	shape, err := randomllama.Llama2(*scale)
	if err != nil {
		return err
	}
	start := time.Now()
	if err := randomllama.Write(*out, shape, *shards, *seed); err != nil {
		return err
	}
	if err := randomllama.Tokenizer(*out, *tokenizer); err != nil {
		return err
	}
	fmt.Printf("%s: %+v in %d shards, %.1f s\n", *out, shape, *shards, time.Since(start).Seconds())
	return nil
}
