package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kvqbook/kvqbook/internal/passkey"
	"github.com/kvqbook/kvqbook/internal/usererr"
)

// A stored row is found again by another process, whatever changed its name; one of other code,
// device, texts or configuration is not it.
func TestResultsAreFoundAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "results.jsonl")
	s, err := openStore(path)
	if err != nil {
		t.Fatal(err)
	}
	k := key{"config", "texts", "model", "device", "version"}
	for _, r := range []result{{key: k, Name: "a", Bits: 5}, {key: k, Name: "<b>", Bits: 4}} {
		if err := s.add(r); err != nil {
			t.Fatal(err)
		}
	}
	if s, err = openStore(path); err != nil {
		t.Fatal(err)
	}
	if r, ok := s.find(k); !ok || r.Name != "<b>" || r.Bits != 4 {
		t.Errorf("found %+v, %t; want the newer of two", r, ok)
	}
	for _, other := range []key{{"x", "texts", "model", "device", "version"}, {"config", "x", "model", "device", "version"}, {"config", "texts", "x", "device", "version"},
		{"config", "texts", "model", "x", "version"}, {"config", "texts", "model", "device", "x"}} {
		if r, ok := s.find(other); ok {
			t.Errorf("%+v found for %+v", r, other)
		}
	}
	if files, _ := filepath.Glob(path + "*"); len(files) != 1 {
		t.Errorf("files %q, want the results alone", files)
	}
	if err := os.WriteFile(path, []byte("{\"name\":\"a\"}\n{\"name\":"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := openStore(path); !usererr.Is(err) || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("a line that was cut off gave %v", err)
	}
}

// What was measured is not measured again, unless its texts changed.
func TestMeasuredRowsAreSkipped(t *testing.T) {
	s, err := openStore(filepath.Join(t.TempDir(), "results.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{store: s, base: key{Model: "m", Device: "d", Version: "v"}, texts: []text{{setGolden, "one", []int32{1, 2, 3}}},
		trials: map[int][]passkey.Trial{64: {{Text: []int32{4, 5}, Tail: []int32{6}}}}}
	jobs, err := makeJobs([]int{64}, "tutorial,balanced,passkey 64 balanced")
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range []int{0, 2} {
		k, err := b.key(jobs[i])
		if err != nil {
			t.Fatal(err)
		}
		if err := s.add(result{key: k}); err != nil {
			t.Fatal(err)
		}
	}
	if left, err := b.missing(jobs); err != nil || len(left) != 1 || left[0].name() != "balanced" {
		t.Errorf("left are %+v, %v; want balanced", left, err)
	}
	b.texts[0].ids[2] = 4
	if left, err := b.missing(jobs); err != nil || len(left) != 2 {
		t.Errorf("with another text left are %+v, %v; want both caches over texts", left, err)
	}
	b.trials[64][0].Tail[0] = 7
	if left, err := b.missing(jobs); err != nil || len(left) != 3 {
		t.Errorf("with another key left are %+v, %v; want all", left, err)
	}
}

func TestOnlyChoosesRows(t *testing.T) {
	names := func(only string) string {
		jobs, err := makeJobs([]int{1024, 4096}, only)
		if err != nil {
			t.Fatal(err)
		}
		var list []string
		for _, j := range jobs {
			list = append(list, j.name())
		}
		return strings.Join(list, ";")
	}
	for only, want := range map[string]string{
		"tutorial":           "tutorial",
		"balanced,tutorial":  "balanced;tutorial",
		"hqq*":               "hqq 4 bit;hqq 2 bit",
		"passkey * balanced": "passkey 1024 balanced;passkey 4096 balanced",
		"+ 4*, passkey 1024 full*,passkey 1024 full precision": "+ 4 sinks;passkey 1024 full precision",
	} {
		if got := names(only); got != want {
			t.Errorf("--only %q chose %s, want %s", only, got, want)
		}
	}
	if got := strings.Count(names(""), ";") + 1; got != len(makeSteps())+2*len(keyCaches()) {
		t.Errorf("%d rows without --only", got)
	}
	if len(keyCaches()) != 7 {
		t.Errorf("%d caches look for passkeys, want full precision, the tutorial's and five presets", len(keyCaches()))
	}
	for _, only := range []string{"nonsense", "tutorial,[", "tutorial,"} {
		if _, err := makeJobs(nil, only); !usererr.Is(err) {
			t.Errorf("--only %q gave %v", only, err)
		}
	}
	for _, s := range makeSteps() {
		if strings.ContainsAny(s.name, ",*?[") {
			t.Errorf("the name %q cannot be given to --only", s.name)
		}
		if err := s.config.Validate(64); err != nil {
			t.Errorf("%s: %v", s.name, err)
		}
	}
}
