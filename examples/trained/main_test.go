package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/kvqbook/kvqbook/internal/testbackend"
	"github.com/kvqbook/kvqbook/internal/testlane"
)

// A few steps on the pure-Go backend: what is trained can be generated from with every cache.
func TestFewSteps(t *testing.T) {
	var out bytes.Buffer
	all, err := run(&out, testbackend.Go(t), 4, 2)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("\n%s", &out)
	var first, last float64
	if _, err := fmt.Sscanf(strings.Join(strings.Split(out.String(), "\n")[:2], "\n"), "step 0: loss %f\nstep 3: loss %f", &first, &last); err != nil {
		t.Fatal(err)
	}
	if !(last < first-0.5) {
		t.Errorf("the loss went from %.2f to %.2f, want it at least 0.5 lower", first, last)
	}
	if len(all) != 3 || len(all[0].text) != 40 || len(all[1].text) != 40 {
		t.Errorf("%+v, want 40 bytes for each of three caches", all)
	}
}

// The whole run: the model has learned the story, and 4 bits keep it.
func TestTrained(t *testing.T) {
	testlane.OnlyAll(t, "trains for a minute; TestFewSteps trains a little")
	var out bytes.Buffer
	all, err := run(&out, testbackend.XLA(t), learned, 8)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("\n%s", &out)
	if all[0].right < 30 {
		t.Errorf("in full precision %d of 40 bytes are the story's, want at least 30", all[0].right)
	}
	if all[1].right < 20 {
		t.Errorf("with 4 bits %d of 40 bytes are the story's, want at least 20", all[1].right)
	}
}
