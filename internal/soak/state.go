package soak

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/kvqbook/kvqbook/internal/filesys"
)

// state is what a part has done, over all of its sittings. It is kept as JSON.
type state struct {
	Finished bool
	Commits  []string // of the code that ran, in the order of the sittings
	Spent    time.Duration
	Stages   []stage
	Counts   []stage           // what is no try of its own: see Sitting.Count
	Failures []string          // a line each
	Notes    []string          // for the row in docs/reliability.md
	Untried  []string          // what could not be tried, and why
	Values   map[string]string // the part's own: see Sitting.Keep
}

// stage is one kind of try within a part.
type stage struct {
	Name  string
	Tries int
	Spent time.Duration // counted by Sitting.Within
}

// stage returns the entry of a name, which it makes where there is none.
func (s *state) stage(name string) *stage { return entry(&s.Stages, name) }

func entry(list *[]stage, name string) *stage {
	i := slices.IndexFunc(*list, func(one stage) bool { return one.Name == name })
	if i < 0 {
		i = len(*list)
		*list = append(*list, stage{Name: name})
	}
	return &(*list)[i]
}

// tries is the number of tries of all stages.
func (s *state) tries() (n int) {
	for _, one := range s.Stages {
		n += one.Tries
	}
	return n
}

// readState returns what was kept in path, or the zero value where nothing was kept.
func readState(path string) (state, error) {
	var s state
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return state{}, fmt.Errorf("%s: %w; --restart begins anew", path, err)
	}
	return s, nil
}

// write keeps the state in path. A kill leaves the old one or the new one.
func (s *state) write(path string) error {
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return filesys.Write(path, append(data, '\n'))
}
