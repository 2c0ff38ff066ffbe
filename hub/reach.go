package hub

import (
	"context"
	"net/http"
	"os"
	"strings"
)

// Reach asks the hub at endpoint ("" for $HF_ENDPOINT, else https://huggingface.co) for an answer,
// once and without a token, and returns the address that it asked. The error is ErrNetwork where
// none came, ErrServer where the hub fails or where something else answers, such as the login page
// of a network, and ErrID where endpoint is no address.
func Reach(ctx context.Context, endpoint string) (string, error) {
	c, err := newClient(Options{Endpoint: endpoint}, token{})
	if err != nil {
		return "", err
	}
	defer c.close()
	w := c.watch(ctx)
	defer w.end()
	req, err := http.NewRequestWithContext(w, http.MethodGet, c.endpoint+"/api/whoami-v2", nil)
	if err != nil {
		return c.endpoint, fail(ErrID, nil, "HF_ENDPOINT %q: %v", c.endpoint, err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return c.endpoint, c.networkError(w, c.origin.Host, err)
	}
	resp.Body.Close()
	switch {
	case resp.StatusCode >= 500:
		return c.endpoint, fail(ErrServer, nil, "%s fails: status %d; try again later", c.origin.Host, resp.StatusCode)
	case resp.StatusCode < 400 && !strings.Contains(resp.Header.Get("Content-Type"), "json"):
		// A hub refuses who comes without a token.
		return c.endpoint, fail(ErrServer, nil, "%s: the answer is not that of a hub; is HF_ENDPOINT right, and is there no login page of a network in between?", c.origin.Host)
	}
	return c.endpoint, nil
}

// TokenSource says where the token in use is: "$HF_TOKEN", a path, "" for none. It is an error,
// ErrToken, where what is there is no token or cannot be read.
func TokenSource() (string, error) {
	t, err := findToken()
	if err != nil || t.secret == "" {
		return "", err
	}
	return t.source, nil
}

// OfflineVariable is the environment variable that forbids to ask the hub, "" if none does.
func OfflineVariable() string {
	for _, name := range []string{"HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"} {
		switch strings.ToUpper(os.Getenv(name)) {
		case "1", "ON", "YES", "TRUE":
			return name
		}
	}
	return ""
}
