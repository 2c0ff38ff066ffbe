// Command testreport reads what `go test -json` prints, shows what matters of it, and decides
// whether the tests passed.
//
//	go test -json ./... | go run ./internal/testreport -counts FILE
//
// It is stricter than go test: a package whose tests were all skipped has failed, and so has a run
// in which no test ran. Skipped tests are listed with their reasons. Tests that the lane leaves out
// (package testlane) are counted apart. The slowest tests are listed with their seconds, and every
// package with its share. FILE gets one line, "PASSED FAILED SKIPPED LEFTOUT".
package main

import (
	"flag"
	"fmt"
	"os"
)

func main() {
	counts := flag.String("counts", "", "file for the numbers of tests that passed, failed, were skipped and were left out")
	flag.Parse()
	r := newReport(os.Stdout)
	if err := r.read(os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "testreport:", err)
		os.Exit(1)
	}
	r.finish()
	if *counts != "" {
		line := fmt.Sprintf("%d %d %d %d\n", r.passed, r.failed, r.skipped, r.leftOut)
		if err := os.WriteFile(*counts, []byte(line), 0o644); err != nil {
			fmt.Fprintln(os.Stderr, "testreport:", err)
			os.Exit(1)
		}
	}
	if r.failed > 0 {
		os.Exit(1)
	}
}
