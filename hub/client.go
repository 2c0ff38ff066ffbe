package hub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	gohub "github.com/gomlx/go-huggingface/hub"
)

const (
	defaultEndpoint = "https://huggingface.co"
	defaultStall    = 30 * time.Second
	attempts        = 4        // in a row without one new byte
	maxRedirects    = 10       // as browsers do it
	maxAnswer       = 64 << 20 // bytes of JSON; a model with thousands of files has a few MB
)

// firstWait is the pause before the second attempt; it doubles from one to the next. A variable for
// the tests.
var firstWait = 500 * time.Millisecond

// client talks to one hub.
type client struct {
	http     *http.Client
	endpoint string // without a slash at its end
	origin   *url.URL
	token    token
	stall    time.Duration // without a byte
	log      func(string)
}

func newClient(o Options, t token) (*client, error) {
	c := &client{token: t, stall: defaultStall, log: o.Log, endpoint: o.Endpoint}
	if c.log == nil {
		c.log = func(string) {}
	}
	if c.endpoint == "" {
		c.endpoint = os.Getenv("HF_ENDPOINT")
	}
	if c.endpoint == "" {
		c.endpoint = defaultEndpoint
	}
	c.endpoint = strings.TrimRight(c.endpoint, "/")
	var err error
	if c.origin, err = url.Parse(c.endpoint); err != nil || c.origin.Host == "" || c.origin.Scheme != "https" && c.origin.Scheme != "http" {
		return nil, fail(ErrID, nil, "HF_ENDPOINT %q: want the address of a hub, such as %s", c.endpoint, defaultEndpoint)
	}
	if text := os.Getenv("HF_HUB_DOWNLOAD_TIMEOUT"); text != "" {
		seconds, err := strconv.ParseFloat(text, 64)
		if err != nil || !(seconds > 0 && seconds < 1e6) {
			return nil, fail(ErrID, nil, "HF_HUB_DOWNLOAD_TIMEOUT=%q: want seconds", text)
		}
		c.stall = time.Duration(seconds * float64(time.Second))
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	// One stream of HTTP/2 is held back by its flow control to a few MB per round trip.
	transport.Protocols = new(http.Protocols)
	transport.Protocols.SetHTTP1(true)
	c.http = &http.Client{
		Transport: transport,
		// Redirects are followed in do: net/http compares hosts without ports, and sends the token
		// on to subdomains.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c, nil
}

func (c *client) close() { c.http.CloseIdleConnections() }

// subject is what a request is about, for messages.
type subject struct {
	repo, revision, file string
}

// watch is a request's context, cancelled when nothing came for too long.
type watch struct {
	context.Context
	timer *time.Timer
	stall time.Duration
	stop  context.CancelCauseFunc
}

func (c *client) watch(ctx context.Context) *watch {
	ctx, cancel := context.WithCancelCause(ctx)
	return &watch{ctx, time.AfterFunc(c.stall, func() { cancel(errStalled) }), c.stall, cancel}
}

func (w *watch) end() {
	w.timer.Stop()
	w.stop(nil)
}

// read is r.Read with a limit of time for it alone: what is done with the bytes may take longer.
func (w *watch) read(r io.Reader, p []byte) (int, error) {
	w.timer.Reset(w.stall)
	defer w.timer.Stop()
	return r.Read(p)
}

// reader reads at most so many bytes.
func (w *watch) reader(r io.Reader, limit int64) io.Reader {
	return io.LimitReader(readerFunc(func(p []byte) (int, error) { return w.read(r, p) }), limit)
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// do sends a request and follows redirects. The token goes to the hub's own address only. first has
// the headers of the first answer, which is the hub's. Any status but 2xx is an error.
func (c *client) do(ctx *watch, method, address string, header http.Header, about subject) (resp *http.Response, first http.Header, err error) {
	for range maxRedirects {
		req, err := http.NewRequestWithContext(ctx, method, address, nil)
		if err != nil {
			return nil, nil, fail(ErrServer, nil, "%s: redirected to an address that makes no sense", c.origin.Host)
		}
		for name, values := range header {
			req.Header[name] = values
		}
		req.Header.Set("User-Agent", "kvqbook (https://github.com/kvqbook/kvqbook)")
		req.Header.Set("Accept-Encoding", "identity") // ranges and lengths are those of the file
		atHub := req.URL.Scheme == c.origin.Scheme && req.URL.Host == c.origin.Host
		if atHub && c.token.secret != "" {
			req.Header.Set("Authorization", "Bearer "+c.token.secret)
		}
		if resp, err = c.http.Do(req); err != nil {
			return nil, nil, c.networkError(ctx, req.URL.Host, err)
		}
		if first == nil {
			first = resp.Header
		}
		switch resp.StatusCode {
		case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
			resp.Body.Close()
			next, err := resp.Location()
			if err != nil || next.Scheme != "https" && next.Scheme != "http" || req.URL.Scheme == "https" && next.Scheme == "http" {
				return nil, nil, fail(ErrServer, nil, "%s: redirected to no address, or to an unprotected one", req.URL.Host)
			}
			address = next.String()
			continue
		}
		if resp.StatusCode/100 != 2 {
			defer resp.Body.Close()
			return nil, nil, c.statusError(ctx, resp, atHub, about)
		}
		return resp, first, nil
	}
	return nil, nil, fail(ErrServer, nil, "%s: more than %d redirects", c.origin.Host, maxRedirects)
}

// json reads an answer of the hub's programming interface into v.
func (c *client) json(ctx context.Context, address string, about subject, v any) error {
	return c.retry(ctx, func() error {
		w := c.watch(ctx)
		defer w.end()
		resp, _, err := c.do(w, http.MethodGet, address, nil, about)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		data, err := io.ReadAll(w.reader(resp.Body, maxAnswer))
		if err != nil {
			return c.networkError(w, c.origin.Host, err)
		}
		if err := json.Unmarshal(data, v); err != nil {
			return fail(ErrServer, nil, "%s: the answer is not the JSON of a hub; is HF_ENDPOINT right, and is there no login page of a network in between?", c.origin.Host)
		}
		return nil
	})
}

// retry repeats what failed for a reason that may pass.
func (c *client) retry(ctx context.Context, f func() error) error {
	for n := 1; ; n++ {
		err := f()
		if again, waitErr := c.again(ctx, err, n); !again {
			return waitErr
		}
	}
}

// again waits before the next attempt, if there should be one after n without success; else it
// returns the error.
func (c *client) again(ctx context.Context, err error, n int) (bool, error) {
	var t *temporary
	if !errors.As(err, &t) {
		return false, err
	}
	if n >= attempts {
		return false, t.error
	}
	wait := firstWait << (n - 1)
	if t.after >= 0 {
		wait = min(t.after, time.Minute)
	}
	c.log(fmt.Sprintf("%s (attempt %d of %d)", short(t.error), n, attempts))
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false, context.Cause(ctx)
	case <-timer.C:
		return true, nil
	}
}

// short is a message without its advice.
func short(err error) string {
	s, _, _ := strings.Cut(err.Error(), "; ")
	return s
}

// statusError says what an answer means. The hub's own codes and their meaning: hf_raise_for_status
// in https://github.com/huggingface/huggingface_hub/blob/v1.0.0/src/huggingface_hub/utils/_http.py
func (c *client) statusError(ctx *watch, resp *http.Response, atHub bool, about subject) error {
	host, code, status := resp.Request.URL.Host, resp.Header.Get("X-Error-Code"), resp.StatusCode
	says := c.says(ctx, resp)
	if status >= 500 || status == http.StatusTooManyRequests || status == http.StatusRequestTimeout {
		advice := "try again later"
		if status == http.StatusTooManyRequests && c.token.secret == "" {
			advice = "log in (kvq login), which the hub allows more, or try again later"
		}
		return &temporary{fail(ErrServer, nil, "%s fails: status %d%s; %s", host, status, says, advice), retryAfter(resp.Header)}
	}
	if !atHub { // a signed address of a storage, which expires: the hub gives a new one
		return &temporary{fail(ErrServer, nil, "the storage %s refuses a file of %s: status %d%s; try again later", host, about.repo, status, says), -1}
	}
	settings := c.endpoint + "/settings/tokens"
	page := c.endpoint + "/" + about.repo
	switch {
	case code == "GatedRepo" && c.token.secret == "":
		return fail(ErrGated, nil, "%s is gated, and no token came with the request; accept its licence at %s, make a token at %s, then run kvq login or set HF_TOKEN", about.repo, page, settings)
	case code == "GatedRepo" && strings.Contains(says, "fine-grained"):
		return fail(ErrGated, nil, "%s is gated, and the %v is a fine-grained one that may not read gated models; allow it to at %s", about.repo, c.token, settings)
	case code == "GatedRepo":
		return fail(ErrGated, nil, "%s is gated, and the %v has no access to it; ask for it at %s and wait until it is granted", about.repo, c.token, page)
	case code == "EntryNotFound":
		return fail(ErrNoFile, nil, "%s has no file %s at revision %s", about.repo, about.file, about.revision)
	case code == "RevisionNotFound":
		return fail(ErrNoFile, nil, "%s has no revision %q; want a branch, a tag or a commit of %s/commits/main", about.repo, about.revision, page)
	case status == http.StatusUnauthorized && c.token.secret != "" && code != "RepoNotFound":
		return fail(ErrToken, nil, "the hub does not accept the %v: it is wrong, revoked or expired; make a new one at %s, then %s", c.token, settings, c.token.renew())
	case about.repo == "" && status == http.StatusUnauthorized:
		return fail(ErrToken, nil, "the hub wants a token; make one at %s, then run kvq login", settings)
	case about.repo != "" && (code == "RepoNotFound" || status == http.StatusUnauthorized || status == http.StatusNotFound):
		advice := "check the name; a private model wants a token: kvq login"
		if c.token.secret != "" {
			advice = fmt.Sprintf("check the name, and that the %v may see it", c.token)
		}
		return fail(ErrNoModel, nil, "no model %s on %s, or a private one; %s", about.repo, c.origin.Host, advice)
	case status == http.StatusForbidden:
		return fail(ErrGated, nil, "the hub refuses %s%s; look at %s and at what the token may do: %s", about.repo, says, page, settings)
	case status == http.StatusRequestedRangeNotSatisfiable:
		return errRange
	}
	return fail(ErrServer, nil, "%s: status %d%s; is HF_ENDPOINT right?", host, status, says)
}

// errRange means that a partial file cannot be continued.
var errRange = errors.New("hub: range not satisfiable")

// says is the server's own message, such as `, it says "…"`; "" without one.
func (c *client) says(ctx *watch, resp *http.Response) string {
	message := resp.Header.Get("X-Error-Message")
	if message == "" && strings.Contains(resp.Header.Get("Content-Type"), "json") {
		var body struct {
			Error string `json:"error"`
		}
		data, _ := io.ReadAll(ctx.reader(resp.Body, 4096))
		_ = json.Unmarshal(data, &body)
		message = body.Error
	}
	message = line(strings.ToValidUTF8(c.token.redact(message), ""))
	if runes := []rune(message); len(runes) > 200 {
		message = string(runes[:200]) + "…"
	}
	if message == "" {
		return ""
	}
	return fmt.Sprintf(", it says %q", message)
}

// retryAfter is what the server wants to be waited, negative if it does not say.
func retryAfter(h http.Header) time.Duration {
	text := h.Get("Retry-After")
	if seconds, err := strconv.Atoi(text); err == nil && seconds >= 0 {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(time.Until(at), 0)
	}
	return -1
}

// repoInfo is the part of gohub.RepoInfo that counts here. That type wants many more fields to be
// of the kind that it expects, and one that is not would make the model unreachable.
type repoInfo struct {
	Commit string            `json:"sha"`
	Files  []*gohub.FileInfo `json:"siblings"` // none is nil: see info
}

// info asks for a revision's commit and files.
func (c *client) info(ctx context.Context, repo, revision string) (*repoInfo, error) {
	about := subject{repo: repo, revision: revision}
	info := &repoInfo{}
	address := fmt.Sprintf("%s/api/%s/%s/revision/%s?blobs=true", c.endpoint, gohub.RepoTypeModel, repo, url.PathEscape(revision))
	if err := c.json(ctx, address, about, info); err != nil {
		return nil, err
	}
	if !commitName.MatchString(info.Commit) {
		return nil, fail(ErrServer, nil, "%s: %s came without a commit; is HF_ENDPOINT a hub?", c.origin.Host, repo)
	}
	for i, file := range info.Files {
		if file == nil || file.Name == "" {
			return nil, fail(ErrServer, nil, "%s: file %d of %s came without a name; is HF_ENDPOINT a hub?", c.origin.Host, i, repo)
		}
	}
	return info, nil
}

// fileURL is where a file of a commit is.
func (c *client) fileURL(repo, commit, file string) string {
	parts := strings.Split(file, "/")
	for i, p := range parts {
		parts[i] = url.PathEscape(p)
	}
	return fmt.Sprintf("%s/%s/resolve/%s/%s", c.endpoint, repo, commit, strings.Join(parts, "/"))
}
