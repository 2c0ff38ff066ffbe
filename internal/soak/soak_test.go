package soak

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const document = "# Reliability\n\n" + beginMark + "\n" + tableHead + "| `other` | stays |\n" + endMark + "\n\nThe end.\n"

func runner(t *testing.T) *Runner {
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "docs"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, Document), []byte(document), 0o644); err != nil {
		t.Fatal(err)
	}
	return &Runner{Root: root, Folder: filepath.Join(root, ".setup", "soak"), Commit: "abc1234", Machine: "a machine", Out: &bytes.Buffer{}}
}

func text(t *testing.T, r *Runner) string {
	data, err := os.ReadFile(filepath.Join(r.Root, Document))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// A part that is stopped goes on where it was; once it is finished its row is in the document, and
// the next run begins anew.
func TestStopAndResume(t *testing.T) {
	r := runner(t)
	ctx, stop := context.WithCancel(t.Context())
	stopAt := 3
	p := Part{Name: "toy", Promise: "It counts.", Test: "`TestToy`", Run: func(_ context.Context, s *Sitting) error {
		for s.More("try", Amount{Quick: 1, Full: 5}) {
			if err := os.WriteFile(filepath.Join(s.Folder(), "kept"), nil, 0o644); err != nil {
				return err
			}
			s.Try("try")
			if s.Tried("try") == stopAt {
				stop()
			}
		}
		s.Note("It went well")
		return nil
	}}
	out, err := r.Run(ctx, p)
	if err != nil || out.Finished || text(t, r) != document {
		t.Fatalf("stopped: %+v, %v, document\n%s", out, err, text(t, r))
	}
	if _, err := os.Stat(filepath.Join(r.Folder, "toy", "kept")); err != nil {
		t.Error(err)
	}
	stopAt, r.Commit = 0, "def5678"
	for range 2 { // resumed, and anew
		out, err = r.Run(t.Context(), p)
		if err != nil || !out.Finished || len(out.Failures) != 0 {
			t.Fatalf("%+v, %v", out, err)
		}
		if got := text(t, r); !strings.Contains(got, "\n| `other` | stays |\n| `toy` | It counts. | `TestToy` | try 5. It went well | 5 | 0 | 0.0 s | ") ||
			!strings.HasSuffix(got, endMark+"\n\nThe end.\n") || strings.Count(got, "`toy`") != 1 {
			t.Errorf("the document is\n%s", got)
		}
	}
	if got := text(t, r); !strings.Contains(got, ", a machine, def5678 |\n") {
		t.Errorf("the document is\n%s", got)
	}
	if _, err := os.Stat(filepath.Join(r.Folder, "toy")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the finished part's folder: %v", err)
	}
}

// A failure keeps its input and is in the row; the quick form writes no row.
func TestFailure(t *testing.T) {
	r := runner(t)
	p := Part{Name: "toy", Promise: "It counts.", Test: "`TestToy`", Run: func(_ context.Context, s *Sitting) error {
		s.Fail([]byte("input"), "did\n not hold")
		s.Try("try")
		return nil
	}}
	out, err := r.Run(t.Context(), p)
	kept := filepath.Join(r.Folder, "failures", "toy-001")
	if data, _ := os.ReadFile(kept); err != nil || len(out.Failures) != 1 || out.Failures[0] != "did not hold (input: "+kept+")" || string(data) != "input" {
		t.Errorf("%+v, %v, input %q", out, err, data)
	}
	if got := text(t, r); !strings.Contains(got, "| 1 | 1: did not hold (input: ") {
		t.Errorf("the document is\n%s", got)
	}
	r = runner(t)
	r.Quick = true
	if out, err := r.Run(t.Context(), p); err != nil || len(out.Failures) != 1 || text(t, r) != document {
		t.Errorf("%+v, %v, document\n%s", out, err, text(t, r))
	}
}

// A part that cannot run is an error, keeps what it did and writes no row.
func TestCannotRun(t *testing.T) {
	r := runner(t)
	want := errors.New("no network")
	p := Part{Name: "toy", Run: func(_ context.Context, s *Sitting) error { s.Try("a"); return want }}
	for range 2 {
		if out, err := r.Run(t.Context(), p); !errors.Is(err, want) || out.Finished || text(t, r) != document {
			t.Errorf("%+v, %v", out, err)
		}
	}
	s, err := readState(filepath.Join(r.Folder, "toy.json"))
	if err != nil || s.tries() != 2 {
		t.Errorf("%+v, %v", s, err)
	}
}

// The time of a stage is used up over several sittings. While a part runs, a line says how far it
// is, and its state is kept.
func TestTimes(t *testing.T) {
	r := runner(t)
	r.Every = 5 * time.Millisecond
	lines := r.Out.(*bytes.Buffer)
	ctx, stop := context.WithTimeout(t.Context(), 40*time.Millisecond)
	defer stop()
	p := Part{Name: "toy", Run: func(_ context.Context, s *Sitting) error {
		for s.Within("wait", Span{Full: 100 * time.Millisecond}) {
			time.Sleep(time.Millisecond)
			s.Try("wait")
		}
		return nil
	}}
	if out, err := r.Run(ctx, p); err != nil || out.Finished {
		t.Fatalf("%+v, %v", out, err)
	}
	before, err := readState(filepath.Join(r.Folder, "toy.json"))
	if err != nil || before.stage("wait").Spent < 30*time.Millisecond {
		t.Fatalf("%+v, %v", before, err)
	}
	start := time.Now()
	if out, err := r.Run(t.Context(), p); err != nil || !out.Finished {
		t.Fatalf("%+v, %v", out, err)
	}
	if took := time.Since(start); took < 100*time.Millisecond-before.stage("wait").Spent {
		t.Errorf("the second sitting took %v after one of %v", took, before.stage("wait").Spent)
	}
	if n := strings.Count(lines.String(), "soak toy: "); n < 5 || !strings.Contains(lines.String(), "failures: wait, ") {
		t.Errorf("%d lines:\n%s", n, lines)
	}
}

// A second run of the same part is refused.
func TestOneAtATime(t *testing.T) {
	r := runner(t)
	p := Part{Name: "toy"}
	p.Run = func(ctx context.Context, s *Sitting) error {
		if _, err := r.Run(ctx, p); err == nil || !strings.Contains(err.Error(), "runs already") {
			t.Errorf("error %v", err)
		}
		return nil
	}
	if _, err := r.Run(t.Context(), p); err != nil {
		t.Error(err)
	}
}

func TestCheckDocument(t *testing.T) {
	p := Part{Name: "toy", Promise: "It counts.", Test: "`TestToy`"}
	good, err := SetRow(beginMark+"\n"+tableHead+endMark, p, NotRun)
	if err != nil {
		t.Fatal(err)
	}
	if wrong := CheckDocument(good, []Part{p}); wrong != nil {
		t.Error(wrong)
	}
	for name, text := range map[string]string{
		"no row of toy": beginMark + "\n" + tableHead + endMark, "a row of no part": strings.Replace(good, "toy", "boy", 1),
		"does not begin with": strings.Replace(good, "counts", "does not", 1), "no table": "", "two rows": strings.Replace(good, endMark, Row(p, NotRun)+"\n"+endMark, 1),
	} {
		if wrong := CheckDocument(text, []Part{p}); len(wrong) == 0 || !strings.Contains(strings.Join(wrong, "\n"), name) {
			t.Errorf("%s: %q", name, wrong)
		}
	}
	if _, err := SetRow("no table", p, NotRun); err == nil {
		t.Error("a row was set in a document without a table")
	}
}

// The rows of all parts can be made anew; figures that are there stay.
func TestUpdateDocument(t *testing.T) {
	a, b := Part{Name: "a", Promise: "It | counts.", Test: "`TestA`"}, Part{Name: "b", Promise: "It is.", Test: "`TestB`"}
	ran := Figures{"try 5, a|b", "5", "0", "1.0 s", "2026-11-28, a machine, abc"}
	before, err := SetRow("x\n"+beginMark+"\n"+tableHead+endMark+"\ny\n", b, ran)
	if err != nil {
		t.Fatal(err)
	}
	b.Promise = "It is so."
	for range 2 { // the second time nothing changes
		before, err = UpdateDocument(before, []Part{a, b})
		want := "x\n" + beginMark + "\n" + tableHead + Row(a, NotRun) + "\n" + Row(b, ran) + "\n" + endMark + "\ny\n"
		if err != nil || before != want || CheckDocument(before, []Part{a, b}) != nil {
			t.Errorf("%v, came\n%s\nwant\n%s", err, before, want)
		}
	}
}
