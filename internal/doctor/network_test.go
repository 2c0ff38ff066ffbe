package doctor

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/kvqbook/kvqbook/internal/hubtest"
)

// What is said of the hub, and that it never is the token.
func TestHub(t *testing.T) {
	const known, stranger = "hf_known", "hf_stranger"
	s := hubtest.New(t, map[string]hubtest.Token{known: {Account: "ada"}})
	m := surroundings(t)
	look := func(what string, state State, says string) {
		t.Helper()
		f := m.hub(context.Background())
		want(t, what, f, state, says)
		if all := fmt.Sprintf("%+v", f); strings.Contains(all, known) || strings.Contains(all, stranger) {
			t.Errorf("%s: the token was told: %s", what, all)
		}
	}
	look("no network", Absent, "http://127.0.0.1:1 is not reached: 127.0.0.1:1: the connection was refused")
	t.Setenv("HF_TOKEN", known)
	look("no network, a token", Absent, "is not reached")
	t.Setenv("HF_ENDPOINT", s.URL)
	look("a token", OK, s.URL+" answers; token of ada, in $HF_TOKEN")
	t.Setenv("HF_TOKEN", stranger)
	look("a token that was revoked", Fails, "Cure: a new token: kvq login")
	t.Setenv("HF_TOKEN", stranger+"\n"+known)
	look("no token", Fails, "Cure: kvq login")
	t.Setenv("HF_TOKEN", "")
	look("without a token", OK, "no token")
	t.Setenv("HF_ENDPOINT", "nowhere")
	look("no address", Fails, "HF_ENDPOINT")
	t.Setenv("HF_HUB_OFFLINE", "1")
	s.Requests()
	look("offline", Absent, "since HF_HUB_OFFLINE is set")
	if asked := s.Requests(); len(asked) > 0 {
		t.Errorf("asked all the same: %v", asked)
	}
}

func TestProxy(t *testing.T) {
	const password = "sesame"
	for _, c := range []struct {
		env   string
		state State
		says  string
	}{
		{"", OK, "none is set"},
		{"HTTPS_PROXY=http://ada:" + password + "@proxy:3128/x", OK, "HTTPS_PROXY=http://proxy:3128"},
		{"https_proxy=proxy:3128 no_proxy=localhost,.x.org", OK, "https_proxy=http://proxy:3128, no_proxy=localhost,.x.org"},
		{"HTTP_PROXY=ftp://proxy", Fails, "HTTP_PROXY is no address: want http, https or socks5, got ftp"},
		{"HTTPS_PROXY=http://ada:" + password + "@/", Fails, "want a scheme and a host. Cure: set it to an address"},
		{"HTTPS_PROXY=http://a:1 https_proxy=http://b:1", Fails, "HTTPS_PROXY and https_proxy differ"},
		{"ALL_PROXY=socks5://a:1", Fails, "ALL_PROXY alone"},
		{"HTTPS_PROXY=socks5://a:1 ALL_PROXY=socks5://a:1", OK, "HTTPS_PROXY=socks5://a:1"},
	} {
		t.Run(c.env, func(t *testing.T) {
			m := surroundings(t)
			for _, v := range strings.Fields(c.env) {
				name, value, _ := strings.Cut(v, "=")
				t.Setenv(name, value)
			}
			f := m.proxy(context.Background())
			want(t, "proxy", f, c.state, c.says)
			if strings.Contains(f.Found+f.Cure, password) {
				t.Errorf("the password was told: %+v", f)
			}
		})
	}
}
