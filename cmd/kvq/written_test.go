package main

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
)

// fullDisk takes so many writes, and then none.
type fullDisk struct{ writes int }

func (f *fullDisk) Write(p []byte) (int, error) {
	if f.writes--; f.writes < 0 {
		return 0, errors.New("no space left")
	}
	return len(p), nil
}

// Output that is lost is a failure, whichever line it is and whatever prints it.
func TestLostOutputIsAFailure(t *testing.T) {
	for _, args := range [][]string{
		{"memory", "--model", tinyModel(t, nil), "--q-group-size", "8", "--measure=false"}, {"presets"}, {"version"}, {"help"}, {"generate", "--help"},
	} {
		for _, writes := range []int{0, 1} {
			if writes == 1 && args[0] != "memory" { // the others write once
				continue
			}
			errs := &bytes.Buffer{}
			if status := execute(context.Background(), args, strings.NewReader(""), &fullDisk{writes}, errs); status != exitFailure || !strings.Contains(errs.String(), "no space left") {
				t.Errorf("kvq %q after %d writes: status %d, %q", args, writes, status, errs)
			}
		}
	}
}
