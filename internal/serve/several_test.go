package serve

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kvqbook/kvqbook/internal/testlane"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama"
)

// Each of several caches gives what it gives alone, under its own name.
func TestSeveralCaches(t *testing.T) {
	testlane.OnlyAll(t, "compiles a made-up model")
	x := newTiny(t, kvq.Config{})
	coarse, err := llama.NewGenerator(x.g.Model(), kvq.Config{Backend: kvq.Quanto, NBits: 2, QGroupSize: 8, ResidualLength: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(coarse.Finalize)
	v := x.serve(func(o *Options) { o.CacheName, o.Others = "full", []Cache{{"coarse", coarse}} })
	if err := v.s.Warm(t.Context()); err != nil {
		t.Fatal(err)
	}
	prompt := some(3, 40)
	exact := x.alone(prompt, llama.GenerateConfig{MaxNewTokens: 24})
	x.g = coarse
	rough := x.alone(prompt, llama.GenerateConfig{MaxNewTokens: 24})
	if exact == rough {
		t.Fatal("both caches write the same: this test shows nothing")
	}
	for model, want := range map[string]string{"tiny": exact, "tiny:full": exact, "": exact, "tiny:coarse": rough} {
		body := greedy(prompt, 24)
		if model != "" {
			body["model"] = model
		}
		if got := v.must(texts, body).Choices[0].Text; got != want {
			t.Errorf("model %q writes %q, wanted %q", model, got, want)
		}
	}
	body := greedy(prompt, 1)
	body["model"] = "tiny:other"
	if status, r := v.ask(texts, body); status != http.StatusNotFound || !strings.Contains(r.Error.Message, `"tiny" or "tiny:coarse"`) {
		t.Errorf("an unknown cache: %d, %+v", status, r.Error)
	}
	resp, err := v.send(t.Context(), http.MethodGet, "/v1/models", "")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var list struct{ Data []struct{ ID string } }
	if err := json.NewDecoder(resp.Body).Decode(&list); err != nil || len(list.Data) != 2 || list.Data[1].ID != "tiny:coarse" {
		t.Errorf("models %+v, %v", list, err)
	}
	if _, err := New(Options{Generator: x.g, Tokenizer: x.tok, Model: "m", Rows: 1, Context: 9, BodyBytes: 9, CacheName: "a", Others: []Cache{{"a", coarse}}}); err == nil {
		t.Error("two caches of one name were taken")
	}
}

// A server is idle so long after its last request has ended, not while one is under way.
func TestOnIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s Server
		start, at := time.Now(), time.Duration(0)
		s.OnIdle(time.Minute, func() { at = time.Since(start) })
		time.Sleep(50 * time.Second)
		s.idle.begin()
		s.idle.begin()
		time.Sleep(5 * time.Minute)
		s.idle.end()
		time.Sleep(5 * time.Minute)
		s.idle.end()
		time.Sleep(59 * time.Second)
		if synctest.Wait(); at != 0 {
			t.Fatalf("idle after %s", at)
		}
		time.Sleep(2 * time.Second)
		if synctest.Wait(); at != 11*time.Minute+50*time.Second {
			t.Errorf("idle after %s, wanted 11m50s", at)
		}
	})
}

func TestOnSocketGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path, gone := filepath.Join(t.TempDir(), "s"), 0
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		stop := OnSocketGone(path, func() { gone++ })
		time.Sleep(time.Minute)
		if synctest.Wait(); gone != 0 {
			t.Error("gone while it is there")
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if synctest.Wait(); gone != 1 {
			t.Errorf("told %d times that it is gone, wanted once", gone)
		}
		stop()
		stop()
	})
}
