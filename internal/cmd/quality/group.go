package main

import (
	"encoding/json"
	"slices"
)

// run is the results that may stand in one document: of one model, device, version and set of
// texts.
type run struct {
	base    key // without Config; Texts are those of the rows over texts
	results []result
}

// newestRun finds the run that the newest result belongs to.
func (s *store) newestRun() (run, bool) {
	for _, r := range slices.Backward(s.list) {
		if r.Keys == nil {
			return s.run(r.key), true
		}
	}
	if len(s.list) == 0 {
		return run{}, false
	}
	return s.run(s.list[len(s.list)-1].key), true
}

// run gathers the results that belong with a key: those of passkeys have texts of their own.
func (s *store) run(k key) run {
	k.Config = ""
	g := run{base: k}
	for _, r := range s.list {
		if r.Model == k.Model && r.Device == k.Device && r.Version == k.Version && (r.Keys != nil || r.Texts == k.Texts) {
			g.results = append(g.results, r)
		}
	}
	return g
}

// find returns the newest result of a job.
func (g run) find(j job) (result, bool) {
	config, err := json.Marshal(j.step.config)
	if err != nil {
		return result{}, false
	}
	for _, r := range slices.Backward(g.results) {
		length := 0
		if r.Keys != nil {
			length = r.Keys.Length
		}
		if r.Config == string(config) && length == j.length {
			return r, true
		}
	}
	return result{}, false
}

// lengths of the texts with passkeys, from the shortest.
func (g run) lengths() []int {
	var list []int
	for _, r := range g.results {
		if r.Keys != nil && !slices.Contains(list, r.Keys.Length) {
			list = append(list, r.Keys.Length)
		}
	}
	slices.Sort(list)
	return list
}

// dates are the first and the last day of the run.
func (g run) dates() string {
	var days []string
	for _, r := range g.results {
		days = append(days, r.Date)
	}
	if len(days) == 0 {
		return "no day"
	}
	first, last := slices.Min(days), slices.Max(days)
	if first == last {
		return first
	}
	return first + " to " + last
}
