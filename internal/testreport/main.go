// Command testreport reads what `go test -json` prints, shows what matters of it, and decides whether the tests passed.
//
//	go test -json ./... | go run ./internal/testreport -counts FILE
//
// It is stricter than go test: a package whose tests were all skipped has failed, and so has a run in which no test ran.
// Skipped tests are listed with their reasons. FILE gets one line, "PASSED FAILED SKIPPED".
package main

import (
	"flag"
	"fmt"
	"os"
)

func main() {
	counts := flag.String("counts", "", "file for the numbers of tests that passed, failed and were skipped")
	flag.Parse()
	r := newReport(os.Stdout)
	if err := r.read(os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "testreport:", err)
		os.Exit(1)
	}
	r.finish()
	if *counts != "" {
		line := fmt.Sprintf("%d %d %d\n", r.passed, r.failed, r.skipped)
		if err := os.WriteFile(*counts, []byte(line), 0o644); err != nil {
			fmt.Fprintln(os.Stderr, "testreport:", err)
			os.Exit(1)
		}
	}
	if r.failed > 0 {
		os.Exit(1)
	}
}
