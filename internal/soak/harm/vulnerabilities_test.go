package harm

import (
	"slices"
	"strings"
	"testing"
)

// A finding whose trace begins with a function is called; one whose trace ends at a module or
// package is not.
func TestReadVulnerabilities(t *testing.T) {
	got, err := readVulnerabilities(strings.NewReader(`
		{"config":{"db_last_modified":"2026-11-20T10:00:00Z"}} {"SBOM":{"modules":[{"path":"a"},{"path":"stdlib"}]}} {"osv":{"id":"GO-1"}}
		{"finding":{"osv":"GO-1","trace":[{"module":"a"}]}} {"finding":{"osv":"GO-1","trace":[{"module":"a","package":"a/b","function":"F"},{"function":"main"}]}}
		{"finding":{"osv":"GO-2","trace":[{"module":"a","package":"a/b"}]}}`))
	if err != nil || got.database != "2026-11-20" || !slices.Equal(got.modules, []string{"a", "stdlib"}) || !slices.Equal(got.called, []string{"GO-1"}) || !slices.Equal(got.others, []string{"GO-2"}) {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := readVulnerabilities(strings.NewReader(`{"config":`)); err == nil {
		t.Error("half an answer was taken")
	}
}
