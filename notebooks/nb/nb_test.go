package nb

import (
	"bytes"
	"errors"
	"image"
	_ "image/png"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kvqbook/kvqbook/hub"
	"github.com/kvqbook/kvqbook/internal/asset"
	"github.com/kvqbook/kvqbook/internal/compiled"
	"github.com/kvqbook/kvqbook/internal/testbackend"
	"github.com/kvqbook/kvqbook/internal/testlane"
	"github.com/kvqbook/kvqbook/kvq"
)

func TestTableIsMarkdown(t *testing.T) {
	got, err := markdown([]string{"part", "bytes"}, [][]string{{"a|b", "1"}, {"c\nd", "2"}})
	want := "| part | bytes |\n| --- | --- |\n| a\\|b | 1 |\n| c ⏎ d | 2 |\n"
	if err != nil || got != want {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
	if _, err := markdown([]string{"one"}, [][]string{{"1", "2"}}); err == nil {
		t.Error("a row longer than the header was accepted")
	}
}

func TestSavedIsLoadedAndReplaced(t *testing.T) {
	t.Setenv("GONB_TMP_DIR", t.TempDir())
	type result struct{ Tokens [][]int32 }
	var got result
	if _, err := load("run", nil, &got); err == nil || !strings.Contains(err.Error(), "cells above") {
		t.Errorf("loading what was never saved: %v", err)
	}
	for _, want := range []result{{[][]int32{{1, 2}}}, {[][]int32{{3}}}} {
		if err := save("run", nil, want); err != nil {
			t.Fatal(err)
		}
		if stale, err := load("run", nil, &got); err != nil || stale != "" || !slices.Equal(got.Tokens[0], want.Tokens[0]) {
			t.Errorf("got %v, %q, %v; want %v", got, stale, err, want)
		}
	}
	if err := save("../run", nil, 1); err == nil {
		t.Error("a name with a folder was accepted")
	}
}

// What was made with other settings is out of date, and the first setting that differs is named.
func TestSavedWithOtherSettingsIsOutOfDate(t *testing.T) {
	t.Setenv("GONB_TMP_DIR", t.TempDir())
	type made struct {
		Prompts []string
		Tokens  int
	}
	then := made{[]string{"a", "b"}, 20}
	if err := save("run", then, 7); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		now  any
		want string // "" for what is up to date
	}{
		{then, ""},
		{made{[]string{"a", "c"}, 20}, `Prompts ["a","b"], and now it is ["a","c"]`},
		{made{[]string{"a"}, 21}, `Prompts ["a","b"], and now it is ["a"]`},
		{made{[]string{"a", "b"}, 21}, "Tokens 20, and now it is 21"},
		{struct{ Other int }{1}, `{"Prompts":["a","b"],"Tokens":20}, and now it is {"Other":1}`},
		{nil, `{"Prompts":["a","b"],"Tokens":20}, and now it is null`},
	} {
		var v int
		stale, err := load("run", c.now, &v)
		if err != nil || v != 7 {
			t.Fatalf("%d, %v", v, err)
		}
		if want := `out of date: "run" was made with ` + c.want + ". Run the cell that makes it again."; c.want != "" && stale != want || c.want == "" && stale != "" {
			t.Errorf("%v: %q, want %q", c.now, stale, want)
		}
	}
}

// Why compiled graphs are not kept is said with the first device, by one cell of a notebook.
func TestNotKeptIsSaidOnce(t *testing.T) {
	t.Setenv("GONB_TMP_DIR", t.TempDir())
	testbackend.XLA(t) // package device is linked: it has set the function
	if asset.NotKept == nil {
		t.Fatal("package device did not set asset.NotKept")
	}
	if err := asset.NotKept(); err != nil && !errors.Is(err, compiled.ErrUntrusted) {
		t.Errorf("NotKept: %v", err)
	}
	refused := errors.New("/clone/compiled can be written by others")
	for i, want := range []string{"note: /clone/compiled can be written by others\n", "", ""} {
		if got := notKept(refused); got != want {
			t.Errorf("cell %d says %q, want %q", i, got, want)
		}
	}
	if got := notKept(nil); got != "" {
		t.Errorf("without a refusal a cell says %q", got)
	}
	t.Setenv("GONB_TMP_DIR", t.TempDir()) // another kernel
	if got := notKept(refused); !strings.HasPrefix(got, "note: ") {
		t.Errorf("the next kernel says %q", got)
	}
}

// Every picture is a PNG on which something of several colours was drawn.
func TestPicturesShowSomething(t *testing.T) {
	moments := []Moment{{0, 9, 0}, {1, 9, 1}, {2, 11, 0}}
	line := []float64{0, 1, 2}
	for name, p := range map[string]Picture{
		"Reuse":  Reuse(1000),
		"Groups": Groups(64, 32),
		"Strips": Strips(moments, 0, 1, 2),
		"Lines":  Axes{Title: "title", X: "x", Y: "y"}.Lines(Series{Name: "one", X: line, Y: line, Baseline: true}, Series{Name: "two", X: line, Y: line}),
		"Log":    Axes{Title: "title", X: "x", Y: "y", LogX: true, LogY: true}.Lines(Series{Name: "one", X: []float64{1, 2, 8}, Y: []float64{9, 0.1, 3}, Points: true}),
		"Heats": Heats(Heat{Title: "numbers", Rows: [][]float64{{1, math.NaN()}, {-2, 0}}, Numbers: true, XNames: []string{"a", "b"}, YNames: []string{"c", "d"}},
			Heat{Title: "nothing", Rows: [][]float64{{0, 0}}}),
		"NumberLine": NumberLine([]float64{1, 2, 4}, 8),
		"Bits":       Bits(WordBits("word", 0x21, 4, 8), WordBits("plane", 5, 1, 8)),
		"Timeline":   Timeline([]string{"one", "two"}, moments, moments),
		"Bars":       Bars("title", "y", []string{"one", "two"}, Part{"a", []float64{1, 2}}, Part{"b", []float64{0, 1}}),
	} {
		img, format, err := image.Decode(bytes.NewReader(p))
		if err != nil || format != "png" {
			t.Errorf("%s: %v, format %q", name, err, format)
			continue
		}
		colors := map[[3]uint32]int{}
		for y := range img.Bounds().Dy() {
			for x := range img.Bounds().Dx() {
				r, g, b, _ := img.At(x, y).RGBA()
				colors[[3]uint32{r >> 8, g >> 8, b >> 8}]++
			}
		}
		if len(colors) < 5 || img.Bounds().Dx() < 800 {
			t.Errorf("%s: %d colours on %v", name, len(colors), img.Bounds())
		}
	}
}

// transformers' policy with the tutorial's numbers: the prompt is coded at once, and 64 new tokens
// later the window is flushed, when the 65th comes.
func TestLifeOfTheTutorialsCache(t *testing.T) {
	testlane.Slow(t, "runs a cache for the drawing")
	moments, err := life(testbackend.XLA(t), kvq.Tutorial(), 9, 66)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []Moment{{0, 9, 0}, {1, 9, 1}, {64, 9, 64}, {65, 73, 1}, {66, 73, 2}} {
		if got := moments[want.New]; got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
	if got := Flushes(moments); len(got) != 1 || got[0].New != 65 {
		t.Errorf("flushes: %+v, want one at token 65", got)
	}
}

func TestModelsAreFoundByNameAndPath(t *testing.T) {
	file := filepath.Join(t.TempDir(), "model.gguf")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := Model(file); got != file {
		t.Errorf("a path became %q", got)
	}
	t.Setenv("KVQ_MODEL", file)
	if got := Model(""); got != file {
		t.Errorf("the small model is %q, want %q", got, file)
	}
}

// The token is asked for when the hub refuses, and only then.
func TestTokenIsAskedForWhereTheHubRefuses(t *testing.T) {
	const secret = "a-secret"
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "gated") && r.Header.Get("Authorization") != "Bearer "+secret {
			w.Header().Set("X-Error-Code", "GatedRepo")
			http.Error(w, "gated", http.StatusUnauthorized)
			return
		}
		_, _ = w.Write([]byte(`{"id":"owner/model","sha":"0123456789012345678901234567890123456789","siblings":[{"rfilename":"README.md"}]}`))
	}))
	defer server.Close()
	for _, c := range []struct {
		model, token, answer string
		asks                 int
		refused              bool
	}{
		// as far as its list of files, in which nothing is a model
		{"owner/public", "", "", 0, false},
		{"owner/gated", secret, "", 0, false},
		{"owner/gated", "", secret, 1, false},
		{"owner/gated", "", "wrong", 1, true},
		{"owner/gated", "wrong", "", 0, true},
		{"owner/gated", "", "", 1, true},
	} {
		asked := 0
		t.Setenv("HF_TOKEN", c.token)
		t.Setenv("HF_HOME", t.TempDir())
		t.Setenv("HUGGING_FACE_HUB_TOKEN", "")
		_, err := fetch(c.model, hub.Options{Endpoint: server.URL, CacheDir: t.TempDir()}, func() (string, error) {
			asked++
			if c.answer == "" {
				return "", errors.New("no answer")
			}
			return c.answer, nil
		})
		refused := errors.Is(err, hub.ErrGated) || errors.Is(err, hub.ErrToken)
		if err == nil || refused != c.refused || asked != c.asks {
			t.Errorf("%+v: asked %d times, %v", c, asked, err)
		}
		if err != nil && (strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), "wrong ")) {
			t.Errorf("the token is in the error: %v", err)
		}
	}
}
