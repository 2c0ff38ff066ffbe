package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/kvqbook/kvqbook/internal/asset"
	"github.com/kvqbook/kvqbook/internal/testlane"
)

// event is one line of `go test -json`, see `go doc test2json`; build events carry ImportPath
// instead of Package.
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
	left    int                 // top-level tests that the lane left out
	failed  int                 // tests that failed, at any level
	seconds map[string]float64  // by test, at any level
}

// timed is how long a test or a package took.
type timed struct {
	name    string
	seconds float64
}

// report counts tests, subtests among them.
type report struct {
	out                     io.Writer
	passed, failed, skipped int
	leftOut                 int // by the lane, see package testlane
	packages                map[string]*pkg
	builds                  map[string][]string // compiler's output by import path
	reasons                 []string            // one line for each skipped test
	leftOf                  map[string]int      // tests left out, by package
	tests, took             []timed             // top-level tests, and packages
}

func newReport(out io.Writer) *report {
	return &report{out: out, packages: map[string]*pkg{}, builds: map[string][]string{}, leftOf: map[string]int{}}
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
		p = &pkg{output: map[string][]string{}, running: map[string]bool{}, seconds: map[string]float64{}}
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
	left := e.Action == "skip" && strings.Contains(strings.Join(p.output[e.Test], ""), testlane.LeftOut)
	if !strings.Contains(e.Test, "/") {
		p.ran++
		switch {
		case left:
			p.left++
		case e.Action == "skip":
			p.skipped++
		}
	}
	p.seconds[e.Test] = e.Elapsed
	switch {
	case e.Action == "pass":
		r.passed++
	case left:
		r.leftOut++
		r.leftOf[short(e.Package)]++
	case e.Action == "skip":
		r.skipped++
		r.reasons = append(r.reasons, fmt.Sprintf("%s %s: %s", e.Package, e.Test, said(p.output[e.Test])))
	case e.Action == "fail":
		r.failed++
		p.failed++
		fmt.Fprintf(r.out, "FAIL %s %s (%.1f s)\n", e.Package, e.Test, e.Elapsed)
		r.show(p.output[e.Test])
	}
	delete(p.output, e.Test)
}

func (r *report) endPackage(e event, p *pkg) {
	if p.ran > 0 {
		r.took = append(r.took, timed{short(e.Package), e.Elapsed})
	}
	for test, seconds := range p.topLevel() {
		r.tests = append(r.tests, timed{short(e.Package) + " " + test, seconds})
	}
	switch {
	case e.Action == "fail" && e.FailedBuild != "":
		r.failed++
		fmt.Fprintf(r.out, "FAIL %s does not compile\n", e.Package)
		r.show(r.builds[e.FailedBuild])
	case e.Action == "fail" && p.failed == 0:
		// A panic, the time limit, os.Exit, TestMain: no test has the blame, so what was running is
		// shown with it.
		r.failed++
		fmt.Fprintf(r.out, "FAIL %s ended early\n", e.Package)
		r.show(p.output[""])
		for _, test := range slices.Sorted(maps.Keys(p.running)) {
			fmt.Fprintf(r.out, "  while %s ran:\n", test)
			r.show(p.output[test])
		}
	case e.Action == "fail":
		fmt.Fprintf(r.out, "FAIL %s (%.1f s)\n", e.Package, e.Elapsed)
	case p.skipped > 0 && p.ran == p.skipped+p.left:
		r.failed++
		fmt.Fprintf(r.out, "FAIL %s: all of its %d tests were skipped%s\n", e.Package, p.ran-p.left, leftOut(p.left))
	case p.ran > 0 && p.ran == p.left:
		fmt.Fprintf(r.out, "-    %s (all of its %d tests left out of this lane)\n", e.Package, p.ran)
	case p.ran > 0:
		fmt.Fprintf(r.out, "ok   %s (%d tests, %.1f s%s)\n", e.Package, p.ran-p.left, e.Elapsed, leftOut(p.left))
	}
}

// topLevel is how long each top-level test took. A test does not count the time of subtests that
// run in parallel, so what its subtests took together counts where that is more.
func (p *pkg) topLevel() map[string]float64 {
	seconds, below := map[string]float64{}, map[string]float64{}
	names := slices.Collect(maps.Keys(p.seconds))
	// Subtests before their parents.
	slices.SortFunc(names, func(a, b string) int { return cmp.Compare(strings.Count(b, "/"), strings.Count(a, "/")) })
	for _, name := range names {
		took := max(p.seconds[name], below[name])
		if i := strings.LastIndexByte(name, '/'); i >= 0 {
			below[name[:i]] += took
		} else {
			seconds[name] = took
		}
	}
	return seconds
}

// finish says what is left to say at the end of the stream.
func (r *report) finish() {
	if len(r.reasons) > 0 {
		fmt.Fprintf(r.out, "skipped, %d:\n", len(r.reasons))
		for _, reason := range r.reasons {
			fmt.Fprintln(r.out, "  "+reason)
		}
	}
	r.showTimes()
	if r.leftOut > 0 {
		var list []string
		for _, name := range slices.Sorted(maps.Keys(r.leftOf)) {
			list = append(list, fmt.Sprintf("%s %d", name, r.leftOf[name]))
		}
		fmt.Fprintf(r.out, "left out of this lane, %d: %s\n", r.leftOut, strings.Join(list, ", "))
	}
	if r.passed+r.failed == 0 {
		r.failed++
		fmt.Fprintln(r.out, "FAIL no test ran")
	}
	fmt.Fprintf(r.out, "go test: %d passed, %d failed, %d skipped, %d left out, subtests counted\n", r.passed, r.failed, r.skipped, r.leftOut)
}

const (
	slowest = 10  // tests that are listed with their seconds
	notable = 1.0 // seconds from which a test or a package is listed
)

// showTimes lists the slowest tests, and the packages with their shares. Packages run side by side,
// so the seconds of all together are more than the run takes.
func (r *report) showTimes() {
	all := 0.0
	for _, p := range r.took {
		all += p.seconds
	}
	if list := longest(r.tests, slowest); len(list) > 0 {
		fmt.Fprintf(r.out, "slowest tests:\n")
		for _, t := range list {
			fmt.Fprintf(r.out, "  %7.1f s  %s\n", t.seconds, t.name)
		}
	}
	if list := longest(r.took, len(r.took)); len(list) > 0 {
		fmt.Fprintf(r.out, "packages, %.1f min in all, some of them at the same time:\n", all/60)
		for _, p := range list {
			fmt.Fprintf(r.out, "  %7.1f s  %2.0f %%  %s\n", p.seconds, 100*p.seconds/all, p.name)
		}
	}
}

// longest returns the n entries that took longest, without those that are not worth a line.
func longest(list []timed, n int) []timed {
	list = slices.SortedStableFunc(slices.Values(list), func(a, b timed) int { return cmp.Compare(b.seconds, a.seconds) })
	list = list[:min(n, len(list))]
	if i := slices.IndexFunc(list, func(t timed) bool { return t.seconds < notable }); i >= 0 {
		list = list[:i]
	}
	return list
}

// leftOut says how many tests a lane left out, "" for none.
func leftOut(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(", %d left out of this lane", n)
}

// short is a package's path without the module's.
func short(path string) string { return strings.TrimPrefix(path, asset.Module+"/") }

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
