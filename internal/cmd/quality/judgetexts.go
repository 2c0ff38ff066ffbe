package main

import (
	"os"
	"strings"

	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// longTexts are documents of this repository: English that is younger than the model.
const longTexts = "docs/design.md,CONTRIBUTING.md,docs/workshop.md,docs/architectures.md,docs/devices.md,README.md,docs/llama2.md,docs/serve.md,docs/benchmarks.md,docs/bench-log.md,docs/reliability.md"

// readLong joins the prose of files and cuts it into texts of n tokens.
func readLong(tok *tokenizer.Tokenizer, files string, texts, n int) (list [][]tokenizer.Token, err error) {
	var joined strings.Builder
	for path := range strings.SplitSeq(files, ",") {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, usererr.New("--long: %w", err)
		}
		joined.WriteString(prose(string(data)) + "\n\n")
	}
	ids := tok.Encode(joined.String())
	if len(ids) < texts*n {
		return nil, usererr.New("--long %s: %d tokens, want %d texts of %d", files, len(ids), texts, n)
	}
	for i := range texts {
		list = append(list, ids[i*n:(i+1)*n])
	}
	return list, nil
}

// prose is a Markdown document without its code, tables and pictures.
func prose(document string) string {
	var b strings.Builder
	code := false
	for line := range strings.Lines(document) {
		if strings.HasPrefix(strings.TrimSpace(line), "```") {
			code = !code
			continue
		}
		if code || strings.HasPrefix(line, "    ") || strings.HasPrefix(line, "|") || strings.HasPrefix(line, "![") {
			continue
		}
		b.WriteString(line)
	}
	return b.String()
}
