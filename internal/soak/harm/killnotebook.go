package harm

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/kvqbook/kvqbook/internal/soak"
)

// markVariable marks what a run of a notebook starts, so that what outlives it is found.
const markVariable = "KVQ_SOAK_MARK"

// smallNotebook is a notebook of a few cells, one of which takes a while.
func smallNotebook() ([]byte, error) {
	return notebookOf("%noautoget", "import (\n\t\"fmt\"\n\t\"time\"\n)\n%%\nfmt.Println(\"one\")", "%%\ntime.Sleep(time.Second)\nfmt.Println(\"two\")", "!sleep 1", "%%\nfmt.Println(\"three\")")
}

// notebookOf is a notebook of code cells.
func notebookOf(sources ...string) ([]byte, error) {
	var cells []any
	for i, source := range sources {
		cells = append(cells, map[string]any{"cell_type": "code", "id": fmt.Sprint("c", i), "source": source, "metadata": map[string]any{},
			"execution_count": nil, "outputs": []any{}})
	}
	return json.Marshal(map[string]any{"nbformat": 4, "nbformat_minor": 5, "cells": cells,
		"metadata": map[string]any{"kernelspec": map[string]any{"name": "gonb", "display_name": "gonb", "language": "go"}}})
}

// workbook is `scripts/workbook run`, without the set-up that comes before.
func workbook(ctx context.Context, s *soak.Sitting, mark string, args ...string) *exec.Cmd {
	script := `source scripts/env.sh; exec "$KVQ_PYTHON" notebooks/run.py "$@"`
	cmd := exec.CommandContext(ctx, "bash", append([]string{"-c", script, "run"}, args...)...)
	cmd.Dir = s.Root
	cmd.Env = append(os.Environ(), markVariable+"="+mark)
	return cmd
}

// killNotebook kills a run of a notebook. Nothing runs on, the notebook is as it was or has all its
// outputs, and the next run succeeds.
func killNotebook(ctx context.Context, s *soak.Sitting, random *rand.Rand) error {
	dir, err := os.MkdirTemp(s.Folder(), "notebook-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "small.ipynb")
	original, err := smallNotebook()
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, original, 0o644); err != nil {
		return err
	}
	mark := fmt.Sprintf("%x", random.Uint64())
	p, err := start(workbook(ctx, s, mark, "--save", path))
	if err != nil {
		return err
	}
	time.Sleep(time.Duration(random.Int64N(int64(10 * time.Second))))
	where := "before its first cell"
	if i := strings.LastIndex(p.out.String(), "/5  "); i > 0 {
		where = "in cell " + strings.TrimSpace(p.out.String()[i-2:i])
	}
	if !p.running() {
		where = "after its end"
	}
	p.kill(random.IntN(2) == 0)
	s.Try("notebook")
	s.Count("notebooks killed "+where, 1)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		left := withVariable(markVariable + "=" + mark)
		if len(left) == 0 {
			break
		}
		if time.Now().After(deadline) {
			s.Fail([]byte(strings.Join(left, "\n")), "a killed notebook (%s) left %d processes: %s", where, len(left), left[0])
			break
		}
	}
	data, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(data, original) && (!json.Valid(data) || !bytes.Contains(data, []byte("three"))) {
		s.Fail(data, "a killed notebook (%s) is neither as it was nor whole: %v", where, err)
	}
	r, err := run(workbook(ctx, s, mark, "--save", path))
	if err != nil || ctx.Err() != nil {
		return err
	}
	if r.status != 0 {
		s.Fail([]byte(r.String()), "a notebook after a kill (%s): %s", where, r)
	}
	return nil
}
