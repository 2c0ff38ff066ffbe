package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// event is one line of `go test -json`, see `go doc test2json`; build events carry ImportPath instead of Package.
type event struct {
	Action      string
	Package     string
	ImportPath  string
	Test        string
	Output      string
	FailedBuild string
	Elapsed     float64
}

// pkg is what is known of one package.
type pkg struct {
	output  map[string][]string // by test; "" for what belongs to none
	running map[string]bool     // tests that have started and not ended
	ran     int                 // top-level tests that ended, whichever way
	skipped int                 // top-level tests that were skipped
	failed  int                 // tests that failed, at any level
}

// report counts tests, subtests among them.
type report struct {
	out                     io.Writer
	passed, failed, skipped int
	packages                map[string]*pkg
	builds                  map[string][]string // compiler's output by import path
	reasons                 []string            // one line for each skipped test
}

func newReport(out io.Writer) *report {
	return &report{out: out, packages: map[string]*pkg{}, builds: map[string][]string{}}
}

// read takes in the whole stream. A line that is no event (go's own complaints) is shown as it is.
func (r *report) read(in io.Reader) error {
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			var e event
			if json.Unmarshal([]byte(line), &e) == nil && e.Action != "" {
				r.add(e)
			} else {
				fmt.Fprint(r.out, line)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (r *report) add(e event) {
	switch e.Action {
	case "build-output":
		r.builds[e.ImportPath] = append(r.builds[e.ImportPath], e.Output)
		return
	case "build-fail":
		return
	}
	p := r.packages[e.Package]
	if p == nil {
		p = &pkg{output: map[string][]string{}, running: map[string]bool{}}
		r.packages[e.Package] = p
	}
	switch e.Action {
	case "output":
		p.output[e.Test] = append(p.output[e.Test], e.Output)
	case "run":
		p.running[e.Test] = true
	case "pass", "fail", "skip":
		if e.Test == "" {
			r.endPackage(e, p)
		} else {
			r.endTest(e, p)
		}
	}
}

func (r *report) endTest(e event, p *pkg) {
	delete(p.running, e.Test)
	if !strings.Contains(e.Test, "/") {
		p.ran++
		if e.Action == "skip" {
			p.skipped++
		}
	}
	switch e.Action {
	case "pass":
		r.passed++
	case "skip":
		r.skipped++
		r.reasons = append(r.reasons, fmt.Sprintf("%s %s: %s", e.Package, e.Test, said(p.output[e.Test])))
	case "fail":
		r.failed++
		p.failed++
		fmt.Fprintf(r.out, "FAIL %s %s (%.1f s)\n", e.Package, e.Test, e.Elapsed)
		r.show(p.output[e.Test])
	}
	delete(p.output, e.Test)
}

func (r *report) endPackage(e event, p *pkg) {
	switch {
	case e.Action == "fail" && e.FailedBuild != "":
		r.failed++
		fmt.Fprintf(r.out, "FAIL %s does not compile\n", e.Package)
		r.show(r.builds[e.FailedBuild])
	case e.Action == "fail" && p.failed == 0:
		// A panic, the time limit, os.Exit, TestMain: no test has the blame, so what was running is shown with it.
		r.failed++
		fmt.Fprintf(r.out, "FAIL %s ended early\n", e.Package)
		r.show(p.output[""])
		for _, test := range slices.Sorted(maps.Keys(p.running)) {
			fmt.Fprintf(r.out, "  while %s ran:\n", test)
			r.show(p.output[test])
		}
	case e.Action == "fail":
		fmt.Fprintf(r.out, "FAIL %s (%.1f s)\n", e.Package, e.Elapsed)
	case p.ran > 0 && p.ran == p.skipped:
		r.failed++
		fmt.Fprintf(r.out, "FAIL %s: all of its %d tests were skipped\n", e.Package, p.ran)
	case p.ran > 0:
		fmt.Fprintf(r.out, "ok   %s (%d tests, %.1f s)\n", e.Package, p.ran, e.Elapsed)
	}
}

// finish says what is left to say at the end of the stream.
func (r *report) finish() {
	if len(r.reasons) > 0 {
		fmt.Fprintf(r.out, "skipped, %d:\n", len(r.reasons))
		for _, reason := range r.reasons {
			fmt.Fprintln(r.out, "  "+reason)
		}
	}
	if r.passed+r.failed == 0 {
		r.failed++
		fmt.Fprintln(r.out, "FAIL no test ran")
	}
	fmt.Fprintf(r.out, "go test: %d passed, %d failed, %d skipped, subtests counted\n", r.passed, r.failed, r.skipped)
}

func (r *report) show(lines []string) {
	for line := range strings.Lines(strings.Join(lines, "")) {
		fmt.Fprint(r.out, "    "+line)
	}
}

// said returns in one line what a test printed, less the testing package's own words.
func said(lines []string) string {
	var words []string
	for line := range strings.Lines(strings.Join(lines, "")) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "=== ") && !strings.HasPrefix(line, "--- ") {
			words = append(words, line)
		}
	}
	if len(words) == 0 {
		return "no reason given"
	}
	return strings.Join(words, " ")
}
