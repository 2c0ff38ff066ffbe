package harm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/kvqbook/kvqbook/internal/randomllama"
	"github.com/kvqbook/kvqbook/internal/soak"
)

// program builds bin/kvq's program into the part's folder.
func program(ctx context.Context, s *soak.Sitting) (string, error) {
	s.Doing("building kvq")
	path := filepath.Join(s.Folder(), "kvq")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", path, "./cmd/kvq")
	cmd.Dir = s.Root
	if out, err := cmd.CombinedOutput(); err != nil && ctx.Err() == nil {
		return "", fmt.Errorf("go build: %w: %s", err, out)
	}
	return path, nil
}

// randomModel writes a model with random weights into the part's folder: Llama-2's layout with its
// sizes divided by scale.
func randomModel(s *soak.Sitting, scale int) (string, error) {
	dir := filepath.Join(s.Folder(), fmt.Sprint("model-", scale))
	if _, err := os.Stat(filepath.Join(dir, "tokenizer.json")); err == nil {
		return dir, nil
	}
	shape, err := randomllama.Llama2(scale)
	if err != nil {
		return "", err
	}
	return dir, errors.Join(randomllama.Write(dir, shape, 2, 1),
		randomllama.Tokenizer(dir, filepath.Join(s.Root, "tokenizer", "testdata", "llama2-tokenizer.json.gz")))
}
