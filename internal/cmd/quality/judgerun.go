package main

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
)

// judgedRun is the rows of --judge that may stand in one document: of one model, device and
// version, the rows of a part over the same texts.
type judgedRun struct {
	base    key
	results []result
}

// newestJudged is the run that the newest row belongs to.
func (s *store) newestJudged() (g judgedRun) {
	texts := map[string]string{} // of the newest row of each part
	for _, r := range slices.Backward(s.list) {
		if r.Judged == nil {
			continue
		}
		if len(g.results) == 0 {
			g.base = key{Model: r.Model, Device: r.Device, Version: r.Version}
		}
		part := job{part: r.Judged.Part, length: r.Judged.length()}.name()
		if texts[part] == "" {
			texts[part] = r.Texts
		}
		if r.Model == g.base.Model && r.Device == g.base.Device && r.Version == g.base.Version && r.Texts == texts[part] {
			g.results = append(g.results, r)
		}
	}
	slices.Reverse(g.results)
	return g
}

// length of the questions; 0 for the other parts.
func (j *judged) length() int {
	if len(j.Asked) == 0 {
		return 0
	}
	return j.Asked[0].Length
}

// find is the newest row of a cache in a part.
func (g judgedRun) find(c step, part string, length int) (result, bool) {
	config, err := json.Marshal(c.config)
	if err != nil {
		return result{}, false
	}
	for _, r := range slices.Backward(g.results) {
		if r.Config == string(config) && r.Judged.Part == part && r.Judged.length() == length {
			return r, true
		}
	}
	return result{}, false
}

// lengths of the questions, from the shortest.
func (g judgedRun) lengths() (list []int) {
	for _, r := range g.results {
		if n := r.Judged.length(); n > 0 && !slices.Contains(list, n) {
			list = append(list, n)
		}
	}
	slices.Sort(list)
	return list
}

// write writes the document and its picture.
func (g judgedRun) write(out string) error {
	picture := strings.TrimSuffix(out, filepath.Ext(out)) + ".svg"
	drawing, err := g.picture()
	if err != nil {
		return err
	}
	if drawing == nil {
		picture = ""
	} else if err := writeFile(picture, drawing); err != nil {
		return err
	}
	return writeFile(out, g.document(picture))
}
