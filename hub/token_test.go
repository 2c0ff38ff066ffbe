package hub

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kvqbook/kvqbook/internal/hubtest"
)

func TestLoginAndLogout(t *testing.T) {
	s := newHub(t)
	for _, c := range []struct {
		name string
		set  func(r *reader) string // returns where the token has to be
	}{
		{"HF_HOME", func(r *reader) string { return filepath.Join(r.home, "token") }},
		{"HF_TOKEN_PATH", func(r *reader) string {
			path := filepath.Join(r.home, "deep", "er", "tok")
			t.Setenv("HF_TOKEN_PATH", path)
			return path
		}},
		{"XDG_CACHE_HOME", func(r *reader) string {
			t.Setenv("HF_HOME", "")
			t.Setenv("XDG_CACHE_HOME", r.home)
			return filepath.Join(r.home, "huggingface", "token")
		}},
		{"home", func(r *reader) string {
			t.Setenv("HF_HOME", "")
			t.Setenv("HOME", r.home)
			return filepath.Join(r.home, ".cache", "huggingface", "token")
		}},
		{"tilde", func(r *reader) string {
			t.Setenv("HF_HOME", "~/hf")
			t.Setenv("HOME", r.home)
			return filepath.Join(r.home, "hf", "token")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newReader(t, s, "")
			path := c.set(r)
			ctx := context.Background()
			if _, err := WhoAmI(ctx, ""); true {
				r.fails(err, ErrToken, true, "not logged in", "kvq login")
			}
			a, err := Login(ctx, "", "  "+secret+"\n")
			r.say("%+v, %v", a, err)
			if err != nil || a.Name != "reader" || a.Source != path {
				t.Fatalf("Login = %+v, %v; want reader, %s", a, err, path)
			}
			info, err := os.Stat(path)
			if err != nil || info.Mode() != 0o600 {
				t.Errorf("mode %v, %v; want 600", info.Mode(), err)
			}
			if text, err := os.ReadFile(path); string(text) != secret {
				t.Errorf("%d bytes in the file, %v; want the token alone", len(text), err)
			}
			if list, err := os.ReadDir(filepath.Dir(path)); len(list) != 1 {
				t.Errorf("%v beside the token, %v", list, err)
			}
			a, err = WhoAmI(ctx, "")
			r.say("%+v, %v", a, err)
			if err != nil || a != (Account{"reader", path}) {
				t.Errorf("WhoAmI = %+v, %v", a, err)
			}
			r.must(gated, func(o *Options) { o.CacheDir = filepath.Join(r.home, "elsewhere") })

			// A token in the environment wins.
			t.Setenv("HF_TOKEN", stranger)
			if a, err = WhoAmI(ctx, ""); err != nil || a != (Account{"stranger", "$HF_TOKEN"}) || TokenVariable() != "HF_TOKEN" {
				t.Errorf("WhoAmI = %+v, %v; variable %q", a, err, TokenVariable())
			}
			t.Setenv("HF_TOKEN", "")

			if got, err := Logout(); err != nil || got != path {
				t.Errorf("Logout = %s, %v", got, err)
			}
			if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("still there: %v", err)
			}
			if got, err := Logout(); err != nil || got != "" {
				t.Errorf("second Logout = %s, %v", got, err)
			}
		})
	}
}

func TestLoginRefused(t *testing.T) {
	s := newHub(t)
	r := newReader(t, s, "")
	const wrong = "hf_neverIssued"
	for _, c := range []struct {
		token string
		want  []string
	}{
		{wrong, []string{"does not accept the token", "/settings/tokens"}},
		{"", []string{"empty", "hf_"}},
		{"hf_one hf_two", []string{"blanks"}},
		{"hf_\x1b[A", []string{"other characters"}},
	} {
		a, err := Login(context.Background(), "", c.token)
		r.fails(err, ErrToken, true, c.want...)
		r.say("%+v %+v %#v", a, err, err)
		if c.token != "" && strings.Contains(r.said.String(), c.token) {
			t.Errorf("the token was told: %s", r.said.String())
		}
	}
	if _, err := os.Stat(filepath.Join(r.home, "token")); err == nil {
		t.Error("a refused token was stored")
	}

	// The old one stays when the new one is not accepted, and when the hub cannot be asked.
	if _, err := Login(context.Background(), "", secret); err != nil {
		t.Fatal(err)
	}
	_, _ = Login(context.Background(), "", wrong)
	_, err := Login(context.Background(), "http://127.0.0.1:1", stranger)
	r.fails(err, ErrNetwork, false, "refused")
	if a, err := WhoAmI(context.Background(), ""); err != nil || a.Name != "reader" {
		t.Errorf("now %+v, %v", a, err)
	}

	t.Setenv("HF_TOKEN_PATH", filepath.Join(r.home, "token", "x")) // a folder that is a file
	_, err = Login(context.Background(), "", secret)
	r.fails(err, ErrCache, true, "could not be stored", "HF_TOKEN_PATH")
	t.Setenv("HF_TOKEN_PATH", r.home)
	_, err = r.fetch(gated)
	r.fails(err, ErrToken, true, "the token file cannot be read")
}

func TestTokenOfTheEnvironment(t *testing.T) {
	s := newHub(t)
	r := newReader(t, s, "")
	t.Setenv("HUGGING_FACE_HUB_TOKEN", secret)
	r.must(gated)
	if a, err := WhoAmI(context.Background(), ""); err != nil || a.Source != "$HUGGING_FACE_HUB_TOKEN" {
		t.Errorf("%+v, %v", a, err)
	}
}

// However a token is printed, it is its source.
func TestTokenIsNotPrinted(t *testing.T) {
	secrets := struct{ t token }{token{secret, "$HF_TOKEN"}}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		for _, text := range []string{fmt.Sprintf(verb, secrets.t), fmt.Sprintf(verb, &secrets.t)} {
			if text != "token from $HF_TOKEN" {
				t.Errorf("%s: %q", verb, text)
			}
		}
	}
}

func TestWhoAmIAtNoHub(t *testing.T) {
	s := newHub(t)
	r := newReader(t, s, secret)
	s.SetFaults(hubtest.Status(404, "no such page"), nil)
	_, err := WhoAmI(context.Background(), "")
	r.fails(err, ErrServer, false, "status 404", "HF_ENDPOINT")
}
