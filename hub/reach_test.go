package hub

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/kvqbook/kvqbook/internal/hubtest"
)

// A hub that answers is reached without the token; what is no hub is told from one that is away.
func TestReach(t *testing.T) {
	s := hubtest.New(t, nil)
	newReader(t, s, secret)
	if at, err := Reach(context.Background(), ""); err != nil || at != s.URL {
		t.Errorf("a hub: %q, %v; want %q", at, err, s.URL)
	}
	for _, r := range s.Requests() {
		if r.Authorization != "" {
			t.Errorf("a token went to the hub: %+v", r)
		}
	}
	login := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>welcome")) }))
	defer login.Close()
	broken := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }))
	defer broken.Close()
	for _, c := range []struct {
		endpoint, says string
		kind           error
	}{
		{"http://127.0.0.1:1", "refused", ErrNetwork},
		{login.URL, "login page", ErrServer},
		{broken.URL, "status 503", ErrServer},
		{"no address", "want the address of a hub", ErrID},
	} {
		if _, err := Reach(context.Background(), c.endpoint); !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", c.endpoint, err, c.says)
		}
	}
}

func TestTokenSource(t *testing.T) {
	newReader(t, nil, secret)
	if at, err := TokenSource(); at != "$HF_TOKEN" || err != nil {
		t.Errorf("%q, %v", at, err)
	}
	t.Setenv("HF_TOKEN", "")
	if at, err := TokenSource(); at != "" || err != nil {
		t.Errorf("without: %q, %v", at, err)
	}
	t.Setenv("HF_TOKEN", secret+" "+stranger)
	if at, err := TokenSource(); at != "" || !errors.Is(err, ErrToken) || strings.Contains(err.Error(), secret) {
		t.Errorf("no token: %q, %v", at, err)
	}
}
