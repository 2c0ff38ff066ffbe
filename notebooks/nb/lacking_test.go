package nb

import (
	"strings"
	"testing"

	"github.com/kvqbook/kvqbook/internal/randomllama"
)

// What is missing is said in one line; nothing is asked of a hub.
func TestLacking(t *testing.T) {
	t.Setenv("HF_HUB_CACHE", t.TempDir())
	t.Setenv("HF_ENDPOINT", "http://127.0.0.1:1")
	const far = "owner/large"
	small, empty := t.TempDir(), t.TempDir()
	shape, err := randomllama.Llama2(32)
	if err == nil {
		err = randomllama.Write(small, shape, 1, 1)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		model string
		gpu   bool
		wants []string
	}{
		{small, false, nil},
		{small, true, nil},
		{far, true, []string{"no files of owner/large"}},
		{far, false, []string{"no CUDA GPU", "no files of owner/large"}},
		{empty, true, []string{"config.json"}}, // a folder without a model
	} {
		got := lacking(c.model, c.gpu)
		if (got == "") != (c.wants == nil) || strings.Contains(got, "\n") {
			t.Errorf("%s, GPU %v: %q", c.model, c.gpu, got)
		}
		for _, want := range c.wants {
			if !strings.Contains(got, want) {
				t.Errorf("%s, GPU %v: %q, want %q in it", c.model, c.gpu, got, want)
			}
		}
	}
}
