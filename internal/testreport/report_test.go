package main

import (
	"strings"
	"testing"

	"github.com/kvqbook/kvqbook/internal/testlane"
)

// run feeds a stream to a report and returns it with what it printed.
func run(t *testing.T, stream string) (*report, string) {
	t.Helper()
	var out strings.Builder
	r := newReport(&out)
	if err := r.read(strings.NewReader(stream)); err != nil {
		t.Fatal(err)
	}
	r.finish()
	return r, out.String()
}

func TestReport(t *testing.T) {
	for _, test := range []struct {
		name                    string
		stream                  string
		passed, failed, skipped int
		leftOut                 int
		shows                   []string
	}{
		{
			name: "passes and skips, with the reason",
			stream: `{"Action":"start","Package":"m/a"}
{"Action":"run","Package":"m/a","Test":"TestX"}
{"Action":"output","Package":"m/a","Test":"TestX","Output":"=== RUN   TestX\n"}
{"Action":"pass","Package":"m/a","Test":"TestX","Elapsed":0.5}
{"Action":"run","Package":"m/a","Test":"TestY"}
{"Action":"output","Package":"m/a","Test":"TestY","Output":"    a_test.go:9: no GPU here\n"}
{"Action":"output","Package":"m/a","Test":"TestY","Output":"--- SKIP: TestY (0.00s)\n"}
{"Action":"skip","Package":"m/a","Test":"TestY","Elapsed":0}
{"Action":"pass","Package":"m/a","Elapsed":0.6}
`,
			passed: 1, skipped: 1,
			shows: []string{"ok   m/a (2 tests, 0.6 s)", "m/a TestY: a_test.go:9: no GPU here"},
		},
		{
			name: "a failed subtest is counted with its parent and shown",
			stream: `{"Action":"run","Package":"m/a","Test":"TestX"}
{"Action":"run","Package":"m/a","Test":"TestX/one"}
{"Action":"output","Package":"m/a","Test":"TestX/one","Output":"    a_test.go:5: wanted 1, came 2\n"}
{"Action":"fail","Package":"m/a","Test":"TestX/one","Elapsed":0}
{"Action":"fail","Package":"m/a","Test":"TestX","Elapsed":0}
{"Action":"fail","Package":"m/a","Elapsed":0}
`,
			failed: 2,
			shows:  []string{"FAIL m/a TestX/one", "wanted 1, came 2", "FAIL m/a (0.0 s)"},
		},
		{
			name: "a package whose tests were all skipped has failed",
			stream: `{"Action":"run","Package":"m/a","Test":"TestX"}
{"Action":"skip","Package":"m/a","Test":"TestX","Elapsed":0}
{"Action":"pass","Package":"m/a","Elapsed":0}
{"Action":"run","Package":"m/b","Test":"TestX"}
{"Action":"pass","Package":"m/b","Test":"TestX","Elapsed":0}
{"Action":"pass","Package":"m/b","Elapsed":0}
`,
			passed: 1, failed: 1, skipped: 1,
			shows: []string{"FAIL m/a: all of its 1 tests were skipped", "no reason given"},
		},
		{
			name: "tests that the lane leaves out are not skipped ones",
			stream: `{"Action":"run","Package":"m/a","Test":"TestX"}
{"Action":"pass","Package":"m/a","Test":"TestX","Elapsed":3.21}
{"Action":"run","Package":"m/a","Test":"TestY"}
{"Action":"output","Package":"m/a","Test":"TestY","Output":"    a_test.go:9: ` + testlane.LeftOut + `a big model\n"}
{"Action":"skip","Package":"m/a","Test":"TestY","Elapsed":0}
{"Action":"pass","Package":"m/a","Elapsed":4}
{"Action":"run","Package":"m/b","Test":"TestX"}
{"Action":"output","Package":"m/b","Test":"TestX","Output":"    b_test.go:9: ` + testlane.LeftOut + `every field\n"}
{"Action":"skip","Package":"m/b","Test":"TestX","Elapsed":0}
{"Action":"pass","Package":"m/b","Elapsed":0}
`,
			passed: 1, leftOut: 2,
			shows: []string{"ok   m/a (1 tests, 4.0 s, 1 left out of this lane)", "-    m/b (all of its 1 tests left out of this lane)",
				"left out of this lane, 2: m/a 1, m/b 1", "3.2 s  m/a TestX", "4.0 s  100 %  m/a"},
		},
		{
			name: "parallel subtests count for their test",
			stream: `{"Action":"run","Package":"m/a","Test":"TestX"}
{"Action":"pass","Package":"m/a","Test":"TestX","Elapsed":0.01}
{"Action":"pass","Package":"m/a","Test":"TestX/one","Elapsed":1.5}
{"Action":"pass","Package":"m/a","Test":"TestX/two","Elapsed":0}
{"Action":"pass","Package":"m/a","Test":"TestX/two/three","Elapsed":2}
{"Action":"pass","Package":"m/a","Elapsed":2.1}
`,
			passed: 4,
			shows:  []string{"3.5 s  m/a TestX", "2.1 s  100 %  m/a"},
		},
		{
			name: "a package in which the lane leaves the rest and all others are skipped has failed",
			stream: `{"Action":"run","Package":"m/a","Test":"TestX"}
{"Action":"skip","Package":"m/a","Test":"TestX","Elapsed":0}
{"Action":"run","Package":"m/a","Test":"TestY"}
{"Action":"output","Package":"m/a","Test":"TestY","Output":"    a_test.go:9: ` + testlane.LeftOut + `a big model\n"}
{"Action":"skip","Package":"m/a","Test":"TestY","Elapsed":0}
{"Action":"pass","Package":"m/a","Elapsed":0}
{"Action":"run","Package":"m/b","Test":"TestX"}
{"Action":"pass","Package":"m/b","Test":"TestX","Elapsed":0}
{"Action":"pass","Package":"m/b","Elapsed":0}
`,
			passed: 1, failed: 1, skipped: 1, leftOut: 1,
			shows: []string{"FAIL m/a: all of its 1 tests were skipped, 1 left out of this lane"},
		},
		{
			name: "a package without tests is no failure",
			stream: `{"Action":"output","Package":"m/c","Output":"?   \tm/c\t[no test files]\n"}
{"Action":"skip","Package":"m/c","Elapsed":0}
{"Action":"run","Package":"m/b","Test":"TestX"}
{"Action":"pass","Package":"m/b","Test":"TestX","Elapsed":0}
{"Action":"pass","Package":"m/b","Elapsed":0}
`,
			passed: 1,
		},
		{
			name: "a package that does not compile",
			stream: `{"ImportPath":"m/a [m/a.test]","Action":"build-output","Output":"a.go:3:1: undefined: x\n"}
{"ImportPath":"m/a [m/a.test]","Action":"build-fail"}
{"Action":"start","Package":"m/a"}
{"Action":"fail","Package":"m/a","Elapsed":0,"FailedBuild":"m/a [m/a.test]"}
`,
			failed: 1,
			shows:  []string{"FAIL m/a does not compile", "undefined: x"},
		},
		{
			name: "a process that ends in the middle of a test",
			stream: `{"Action":"run","Package":"m/a","Test":"TestX"}
{"Action":"output","Package":"m/a","Test":"TestX","Output":"about to crash\n"}
{"Action":"output","Package":"m/a","Output":"signal: killed\n"}
{"Action":"fail","Package":"m/a","Elapsed":0}
`,
			failed: 1,
			shows:  []string{"FAIL m/a ended early", "signal: killed", "while TestX ran", "about to crash"},
		},
		{
			name:   "nothing ran",
			stream: "go: some complaint\n",
			failed: 1,
			shows:  []string{"go: some complaint", "FAIL no test ran"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			r, out := run(t, test.stream)
			if r.passed != test.passed || r.failed != test.failed || r.skipped != test.skipped || r.leftOut != test.leftOut {
				t.Errorf("%d passed, %d failed, %d skipped, %d left out; want %d, %d, %d, %d\n%s",
					r.passed, r.failed, r.skipped, r.leftOut, test.passed, test.failed, test.skipped, test.leftOut, out)
			}
			for _, text := range test.shows {
				if !strings.Contains(out, text) {
					t.Errorf("output lacks %q:\n%s", text, out)
				}
			}
		})
	}
}
