package harm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/kvqbook/kvqbook/internal/soak"
)

var vulnerabilities = soak.Part{
	Name:    "vulnerabilities",
	Promise: "No program here calls a function with a vulnerability that Go's database knows.",
	Test:    "`TestNoticeIsCurrent` in `internal/cmd/notice`: the modules, with their dates, are in NOTICE",
	Run:     runVulnerabilities,
}

// govulncheck is the program that knows the database, https://go.dev/doc/security/vuln. $GOVULNDB
// names another place of it, such as file:///folder.
const govulncheck = "golang.org/x/vuln/cmd/govulncheck@v1.9.0"

// runVulnerabilities runs govulncheck over each module of the clone. Its database is on the
// network, so the quick form looks at nothing.
func runVulnerabilities(ctx context.Context, s *soak.Sitting) error {
	if s.Quick {
		return nil
	}
	for _, module := range []string{".", "tools"} {
		s.Doing("govulncheck in %s", module)
		packages := []string{"./..."}
		if module == "tools" {
			packages = []string{"github.com/janpfeifer/gonb", "golang.org/x/tools/cmd/goimports"}
		}
		arguments := []string{"run", govulncheck, "-C", module, "-format", "json"}
		if db := os.Getenv("GOVULNDB"); db != "" {
			arguments = append(arguments, "-db", db)
		}
		cmd := exec.CommandContext(ctx, "go", append(arguments, packages...)...)
		cmd.Dir = s.Root
		r, err := run(cmd)
		if err != nil || ctx.Err() != nil {
			return err
		}
		if strings.Contains(r.stderr, "fetching vulnerabilities") {
			s.Untried("govulncheck's database cannot be reached from here; NOTICE has the modules with their dates")
			return nil
		}
		// 3 is its status for vulnerabilities that it found; with JSON it is 0.
		if r.status != 0 && r.status != 3 {
			return fmt.Errorf("govulncheck: %s", r.stderr)
		}
		report, err := readVulnerabilities(strings.NewReader(r.stdout))
		if err != nil {
			return err
		}
		s.Tries("modules", len(report.modules))
		s.Count("known vulnerabilities of these modules in functions that nothing here calls", len(report.others))
		s.Note("Database of %s", report.database)
		for _, id := range report.called {
			s.Fail([]byte(r.stdout), "%s: calls what %s is about: https://pkg.go.dev/vuln/%s", module, id, id)
		}
	}
	return nil
}

// vulnerabilityReport is what govulncheck says.
type vulnerabilityReport struct {
	database string   // when it was changed last
	modules  []string // that were looked at
	called   []string // ids of vulnerabilities whose functions are called
	others   []string // ids of further ones in the modules
}

// readVulnerabilities reads the messages of govulncheck -format json:
// https://pkg.go.dev/golang.org/x/vuln/internal/govulncheck
func readVulnerabilities(r io.Reader) (report vulnerabilityReport, err error) {
	all := map[string]bool{} // id: is it called?
	for decoder := json.NewDecoder(r); ; {
		var message struct {
			Config *struct {
				DBLastModified string `json:"db_last_modified"`
			} `json:"config"`
			SBOM *struct {
				Modules []struct{ Path string } `json:"modules"`
			} `json:"SBOM"`
			Finding *struct {
				OSV   string `json:"osv"`
				Trace []struct {
					Function string `json:"function"`
				} `json:"trace"`
			} `json:"finding"`
		}
		if err := decoder.Decode(&message); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return report, fmt.Errorf("govulncheck's answer: %w", err)
		}
		if message.Config != nil {
			report.database, _, _ = strings.Cut(message.Config.DBLastModified, "T")
		}
		if message.SBOM != nil {
			for _, m := range message.SBOM.Modules {
				report.modules = append(report.modules, m.Path)
			}
		}
		if f := message.Finding; f != nil {
			all[f.OSV] = all[f.OSV] || len(f.Trace) > 0 && f.Trace[0].Function != ""
		}
	}
	for id, called := range all {
		if called {
			report.called = append(report.called, id)
		} else {
			report.others = append(report.others, id)
		}
	}
	slices.Sort(report.called)
	slices.Sort(report.others)
	return report, nil
}
