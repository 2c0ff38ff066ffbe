package hub

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kvqbook/kvqbook/internal/hubtest"
)

// Each failure that is the reader's to mend has its own line, which says what to do.
func TestRefusals(t *testing.T) {
	const wrong = "hf_neverIssued"
	for _, c := range []struct {
		name, token, id string
		kind            error
		want            []string
	}{
		{"gated without a token", "", gated, ErrGated, []string{gated + " is gated", "no token", "/" + gated, "/settings/tokens", "kvq login", "HF_TOKEN"}},
		{"gated without access", stranger, gated, ErrGated, []string{gated + " is gated", "the token from $HF_TOKEN has no access", "ask for it at", "/" + gated}},
		{"wrong token", wrong, gated, ErrToken, []string{"does not accept the token from $HF_TOKEN", "expired", "/settings/tokens", "put it into HF_TOKEN"}},
		{"wrong token for a public model", wrong, public, ErrToken, []string{"does not accept the token"}},
		{"no such model", secret, "org/typo", ErrNoModel, []string{"no model org/typo on 127.0.0.1", "check the name"}},
		{"no such model, without a token", "", "org/typo", ErrNoModel, []string{"no model org/typo on 127.0.0.1", "private", "kvq login"}},
		{"no such revision", "", public + "@v9", ErrNoFile, []string{public, `no revision "v9"`, "branch, a tag or a commit"}},
		{"no such commit", "", public + "@" + strings.Repeat("d", 40), ErrNoFile, []string{"no revision", "dddd"}},
		{"no such file", "", public + "/model.gguf", ErrNoFile, []string{public, "no file model.gguf"}},
		{"GGUF files alone", "", "org/gguf", ErrNoFile, []string{"org/gguf", "safetensors", "org/gguf/q4/model.Q4_1.gguf"}},
		{"pickled weights alone", "", "org/pickle", ErrNoFile, []string{"org/pickle", "safetensors"}},
		{"a token of two words", "hf_a hf_b", public, ErrToken, []string{"$HF_TOKEN", "blanks"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newHub(t)
			r := newReader(t, s, c.token)
			_, err := r.fetch(c.id)
			r.fails(err, c.kind, true, c.want...)
			if c.token != "" && strings.Contains(r.said.String(), c.token) {
				t.Errorf("the token was told: %s", r.said.String())
			}
			if n := len(s.Requests()); n > 2 {
				t.Errorf("%d requests for what cannot work, want 2 at most", n)
			}
		})
	}
}

// A fine-grained token may lack the right to read gated models at all.
func TestFineGrainedToken(t *testing.T) {
	s := newHub(t)
	r := newReader(t, s, stranger)
	s.SetFaults(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.HasPrefix(r.URL.Path, "/api/") {
			return false
		}
		w.Header().Set("X-Error-Code", "GatedRepo")
		w.Header().Set("X-Error-Message", "Please enable access to public gated repositories in your fine-grained token settings to view this repository.")
		w.WriteHeader(http.StatusForbidden)
		return true
	}, nil)
	_, err := r.fetch(gated)
	r.fails(err, ErrGated, true, "may not read gated models", "allow it to at "+s.URL+"/settings/tokens")
}

// A server that sends back what it got does not get the token into the message.
func TestServerEchoesTheToken(t *testing.T) {
	for _, c := range []struct {
		status int
		kind   error
		user   bool
	}{{403, ErrGated, true}, {500, ErrServer, false}, {418, ErrServer, false}} {
		s := newHub(t)
		r := newReader(t, s, secret)
		s.SetFaults(func(w http.ResponseWriter, r *http.Request) bool {
			return hubtest.Status(c.status, "no way for "+r.Header.Get("Authorization"))(w, r)
		}, nil)
		_, err := r.fetch(gated)
		r.fails(err, c.kind, c.user, `"no way for Bearer (token)"`)
	}
	// In the body, with what would act on a terminal.
	s := newHub(t)
	r := newReader(t, s, secret)
	s.SetFaults(func(w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprintf(w, `{"error": "no \u001b[31mway\n for %s"}`, r.Header.Get("Authorization"))
		return true
	}, nil)
	_, err := r.fetch(gated)
	r.fails(err, ErrGated, true, "for Bearer (token)")
	// In what is no HTTP: net/http quotes it in its error.
	s.SetFaults(func(w http.ResponseWriter, r *http.Request) bool {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nX-\x1bEcho %s\r\n\r\n", r.Header.Get("Authorization"))
			conn.Close()
		}
		return true
	}, nil)
	_, err = r.fetch(gated)
	r.fails(err, ErrNetwork, false, "(token)")
	for cause := err; cause != nil; cause = deeper(cause) {
		r.say("%v", cause)
	}
}

// deeper is what an error wraps, the last one of several.
func deeper(err error) error {
	switch e := err.(type) {
	case interface{ Unwrap() []error }:
		list := e.Unwrap()
		return list[len(list)-1]
	case interface{ Unwrap() error }:
		return e.Unwrap()
	}
	return nil
}

func TestNoNetwork(t *testing.T) {
	t.Run("connection refused", func(t *testing.T) {
		r := newReader(t, nil, secret)
		t.Setenv("HF_ENDPOINT", "http://127.0.0.1:1")
		_, err := r.fetch(gated)
		r.fails(err, ErrNetwork, false, "127.0.0.1:1", "refused", "--offline", "HF_ENDPOINT")
	})
	t.Run("no address", func(t *testing.T) {
		r := newReader(t, nil, secret)
		t.Setenv("HF_ENDPOINT", "http://hub.invalid") // a name that never exists: RFC 2606
		_, err := r.fetch(gated)
		r.fails(err, ErrNetwork, false, "hub.invalid", "no address found", "check the network")
	})
	t.Run("proxy that is not there", func(t *testing.T) {
		r := newReader(t, nil, secret)
		c, err := newClient(Options{Endpoint: "http://hub.invalid"}, token{secret, "$HF_TOKEN"})
		if err != nil {
			t.Fatal(err)
		}
		w := c.watch(context.Background())
		defer w.end()
		refused := fmt.Errorf("proxyconnect tcp: %w", syscall.ECONNREFUSED)
		r.fails(c.networkError(w, "hub.invalid", refused), ErrNetwork, false, "proxyconnect", "HTTPS_PROXY")
	})
	t.Run("endpoint that is none", func(t *testing.T) {
		r := newReader(t, nil, secret)
		t.Setenv("HF_ENDPOINT", "huggingface.co")
		_, err := r.fetch(gated)
		r.fails(err, ErrID, true, `HF_ENDPOINT "huggingface.co"`, "https://huggingface.co")
	})
	t.Run("login page of a network", func(t *testing.T) {
		s := newHub(t)
		r := newReader(t, s, secret)
		s.SetFaults(func(w http.ResponseWriter, _ *http.Request) bool {
			fmt.Fprint(w, "<html>Welcome to our WLAN")
			return true
		}, nil)
		_, err := r.fetch(gated)
		r.fails(err, ErrServer, false, "not the JSON of a hub", "login page")
	})
	t.Run("certificate", func(t *testing.T) {
		s := newTLS(t)
		r := newReader(t, nil, secret)
		t.Setenv("HF_ENDPOINT", s)
		_, err := r.fetch(gated)
		r.fails(err, ErrNetwork, false, "certificate", "not to be trusted")
	})
}

// A hub that fails now and then is asked again; one that fails on and on ends with its own words.
func TestServerErrors(t *testing.T) {
	s := newHub(t)
	r := newReader(t, s, secret)
	s.SetFaults(hubtest.First(3, hubtest.Status(503, "down for a moment")), hubtest.First(3, hubtest.Status(500, "oops")))
	r.holds(r.must(gated), neededFiles...)
	if said := r.said.String(); !strings.Contains(said, "status 503") || !strings.Contains(said, "attempt 3 of 4") {
		t.Errorf("said %s", said)
	}

	r = newReader(t, s, secret)
	s.SetFaults(hubtest.Status(502, "down for longer"), nil)
	_, err := r.fetch(gated)
	r.fails(err, ErrServer, false, "127.0.0.1", "status 502", "down for longer", "try again later")

	r = newReader(t, s, "")
	s.SetFaults(hubtest.Status(429, "We had to rate limit your IP"), nil)
	_, err = r.fetch(public)
	r.fails(err, ErrServer, false, "status 429", "rate limit", "log in")

	// Signed addresses expire: the hub is asked for a new one.
	r = newReader(t, s, secret)
	s.SetFaults(nil, hubtest.First(2, hubtest.Status(403, "Request has expired")))
	r.holds(r.must(gated), neededFiles...)
	r = newReader(t, s, secret)
	s.SetFaults(nil, hubtest.Status(403, "Request has expired"))
	_, err = r.fetch(gated)
	r.fails(err, ErrServer, false, "storage", "403", "Request has expired")
}

// A connection that breaks is picked up where it broke, within a Fetch and by the next one.
func TestBrokenConnections(t *testing.T) {
	s := newHub(t)
	r := newReader(t, s, secret)
	s.SetFaults(nil, s.Cut(60_000)) // more cuts than attempts: each made progress
	folder := r.must(gated)
	r.holds(folder, neededFiles...)
	ranges := 0
	for _, q := range s.Requests() {
		if q.Storage && q.Range != "" {
			ranges++
		}
	}
	if ranges < 6 {
		t.Errorf("%d requests with a range, want one for each 60000 bytes of 500000", ranges)
	}

	r = newReader(t, s, secret)
	s.SetFaults(nil, func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Range") == "" {
			return s.Cut(60_000)(w, r)
		}
		return s.Cut(0)(w, r)
	})
	_, err := r.fetch(gated)
	r.fails(err, ErrNetwork, false, "127.0.0.1", "the connection broke", "goes on where it stopped")
	if len(r.leftovers()) == 0 {
		t.Fatal("nothing is left to go on from")
	}
	s.SetFaults(nil, nil)
	s.Requests()
	r.progress = nil
	r.holds(r.must(gated), neededFiles...)
	resumed := false
	for _, q := range s.Requests() {
		resumed = resumed || q.Storage && q.Range == "bytes=60000-"
	}
	if !resumed || r.progress[0].Done < 60_000 {
		t.Errorf("not gone on from byte 60000; the first progress is %+v", r.progress[0])
	}
	if left := r.leftovers(); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestServerWithoutRanges(t *testing.T) {
	s := newHub(t)
	r := newReader(t, s, secret)
	cut := hubtest.First(3, s.Cut(60_000))
	s.SetFaults(nil, func(w http.ResponseWriter, r *http.Request) bool { return s.WithoutRanges()(w, r) || cut(w, r) })
	r.holds(r.must(gated), neededFiles...)
	last := r.progress[len(r.progress)-1]
	if last.Done != last.Total {
		t.Errorf("the last progress is %+v, want all of it", last)
	}
}

func TestWrongRange(t *testing.T) {
	s := newHub(t)
	r := newReader(t, s, secret)
	s.SetFaults(nil, func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Range") == "" {
			return s.Cut(60_000)(w, r)
		}
		w.Header().Set("Content-Range", "bytes 5-9/10")
		w.WriteHeader(http.StatusPartialContent)
		fmt.Fprint(w, "12345")
		return true
	})
	_, err := r.fetch(gated)
	r.fails(err, ErrServer, false, "from byte 60000", `"bytes 5-9/10"`)
}

// A connection that falls silent is given up after a while, and picked up.
func TestStalledConnection(t *testing.T) {
	s := newHub(t)
	r := newReader(t, s, secret)
	t.Setenv("HF_HUB_DOWNLOAD_TIMEOUT", "0.3")
	s.SetFaults(nil, hubtest.First(2, s.Stall(60_000)))
	r.holds(r.must(gated), neededFiles...)
	if said := r.said.String(); !strings.Contains(said, "stalled") {
		t.Errorf("said %s", said)
	}

	r = newReader(t, s, secret)
	t.Setenv("HF_HUB_DOWNLOAD_TIMEOUT", "0.05")
	s.SetFaults(nil, s.Stall(0))
	_, err := r.fetch(gated)
	r.fails(err, ErrNetwork, false, "stalled", "no data for 50ms", "goes on where it stopped")

	r = newReader(t, s, secret)
	t.Setenv("HF_HUB_DOWNLOAD_TIMEOUT", "0.05")
	s.SetFaults(func(_ http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true }, nil)
	_, err = r.fetch(gated)
	r.fails(err, ErrNetwork, false, "stalled")

	t.Setenv("HF_HUB_DOWNLOAD_TIMEOUT", "soon")
	_, err = r.fetch(gated)
	r.fails(err, ErrID, true, `HF_HUB_DOWNLOAD_TIMEOUT="soon"`, "seconds")
}

// What came broken is deleted and fetched once more.
func TestCorruptedDownload(t *testing.T) {
	s := newHub(t)
	r := newReader(t, s, secret)
	s.SetFaults(nil, hubtest.First(1, s.Corrupt()))
	r.holds(r.must(gated), neededFiles...)
	if said := r.said.String(); !strings.Contains(said, "wrong hash, fetching it again") {
		t.Errorf("said %s", said)
	}

	r = newReader(t, s, secret)
	s.SetFaults(nil, s.Corrupt())
	s.Requests()
	_, err := r.fetch(gated + "/tokenizer.model")
	r.fails(err, ErrCorrupt, false, "tokenizer.model of "+gated, "broken twice", "deleted")
	if left := r.leftovers(); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
	count := 0
	for _, q := range s.Requests() {
		if q.Storage {
			count++
		}
	}
	if count != 2 {
		t.Errorf("fetched %d times, want 2", count)
	}

	// A partial file with wrong content, and one that is too long.
	for _, data := range [][]byte{content(77, 1000), content(77, 6000)} {
		r = newReader(t, s, secret)
		s.SetFaults(nil, nil)
		blob := newCache(filepath.Join(r.home, "hub"), gated).blob(s.Repos[0].Files[12].Hash()) + incomplete
		if err := os.MkdirAll(filepath.Dir(blob), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(blob, data, 0o644); err != nil {
			t.Fatal(err)
		}
		path := r.must(gated + "/tokenizer.model")
		if got, err := os.ReadFile(path); !bytes.Equal(got, content(5, 5000)) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	}

	// More than was announced.
	r = newReader(t, s, secret)
	s.SetFaults(nil, func(w http.ResponseWriter, _ *http.Request) bool { _, _ = w.Write(content(5, 5001)); return true })
	_, err = r.fetch(gated + "/tokenizer.model")
	r.fails(err, ErrCorrupt, false, "more than the 5000 bytes")
}

// A blob of the wrong size, as a full disk or a crash may leave it, is fetched again.
func TestBrokenBlob(t *testing.T) {
	s := newHub(t)
	r := newReader(t, s, secret)
	path := r.must(gated + "/tokenizer.model")
	if err := os.Truncate(path, 100); err != nil {
		t.Fatal(err)
	}
	r.must(gated + "/tokenizer.model")
	if got, err := os.ReadFile(path); !bytes.Equal(got, content(5, 5000)) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestFullDisk(t *testing.T) {
	t.Run("while it is written", func(t *testing.T) {
		if _, err := os.Stat("/dev/full"); err != nil {
			t.Skip("no /dev/full")
		}
		s := newHub(t)
		r := newReader(t, s, secret)
		// The partial file leads to the device that is always full.
		blob := newCache(filepath.Join(r.home, "hub"), gated).blob(s.Repos[0].Files[12].Hash()) + incomplete
		if err := os.MkdirAll(filepath.Dir(blob), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("/dev/full", blob); err != nil {
			t.Fatal(err)
		}
		_, err := r.fetch(gated)
		r.fails(err, ErrDiskFull, false, filepath.Join(r.home, "hub"), "is full", "HF_HUB_CACHE", "goes on where it stopped")
		if !is(err, syscall.ENOSPC) {
			t.Errorf("the cause is lost: %v", err)
		}
	})
	t.Run("before it begins", func(t *testing.T) {
		if _, known := freeBytes(t.TempDir()); !known {
			t.Skip("what is free on a disk is not known on this system")
		}
		s := newHub(t)
		r := newReader(t, s, secret)
		s.SetFaults(func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.HasPrefix(r.URL.Path, "/api/") {
				return false
			}
			fmt.Fprintf(w, `{"sha": "%s", "siblings": [{"rfilename": "model.gguf", "size": 1, "blobId": "%[1]s", "lfs": {"sha256": "%064d", "size": 9000000000000000000}}]}`, commit1, 7)
			return true
		}, nil)
		s.Requests()
		_, err := r.fetch(gated + "/model.gguf")
		r.fails(err, ErrDiskFull, false, gated+" needs 9e+03 PB", "left", "HF_HUB_CACHE")
		if q := s.Requests(); len(q) != 1 {
			t.Errorf("%d requests, want the one for the list alone", len(q))
		}
	})
}

func TestCacheFolderNotWritable(t *testing.T) {
	s := newHub(t)
	r := newReader(t, s, secret)
	file := filepath.Join(r.home, "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("HF_HUB_CACHE", filepath.Join(file, "hub"))
	_, err := r.fetch(public)
	r.fails(err, ErrCache, true, filepath.Join(file, "hub"), "cannot be written", "HF_HUB_CACHE or HF_HOME")

	t.Setenv("HF_HUB_CACHE", filepath.Join(r.home, "hub"))
	if err := os.Mkdir(filepath.Join(r.home, "hub"), 0o555); err != nil {
		t.Fatal(err)
	}
	if os.Getuid() == 0 {
		t.Skip("nothing is forbidden to root")
	}
	_, err = r.fetch(public)
	r.fails(err, ErrCache, true, filepath.Join(r.home, "hub"), "permission denied")
}

// Ctrl-C ends a download at once, also one that hangs, and what came is kept.
func TestInterrupt(t *testing.T) {
	s := newHub(t)
	r := newReader(t, s, secret)
	s.SetFaults(nil, s.Stall(60_000))
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	o := r.options()
	came := make(chan bool, 100)
	o.Progress = func(p Progress) {
		if p.Done >= 60_000 {
			came <- true
		}
	}
	ended := make(chan error)
	go func() {
		_, err := Fetch(ctx, gated, o)
		ended <- err
	}()
	<-came
	cancel()
	select {
	case err := <-ended:
		if !is(err, context.Canceled) || is(err, ErrNetwork) {
			t.Errorf("ended with %v, want context.Canceled", err)
		}
	case <-time.After(defaultStall / 2): // less than what ends a stalled connection
		t.Fatal("goes on")
	}
	if len(r.leftovers()) == 0 {
		t.Error("nothing is kept")
	}
	s.SetFaults(nil, nil)
	r.holds(r.must(gated), neededFiles...)

	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Fetch(cancelled, gated, r.options()); !is(err, context.Canceled) {
		t.Errorf("with a done context: %v", err)
	}
}

// Several fetch the same model at once: each file comes once.
func TestFetchTogether(t *testing.T) {
	s := newHub(t)
	r := newReader(t, s, secret)
	const n = 4
	results := make(chan error, n)
	for range n {
		go func() {
			_, err := Fetch(context.Background(), gated, Options{})
			results <- err
		}()
	}
	for range n {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	stored := 0
	for _, q := range s.Requests() {
		if q.Storage {
			stored++
		}
	}
	if stored != 3 {
		t.Errorf("%d requests at the storage, want 3", stored)
	}
	r.holds(r.must(gated), neededFiles...)
}

// Redirects: no token to anybody else, none of them without end.
func TestRedirects(t *testing.T) {
	s := newHub(t)
	r := newReader(t, s, secret)
	s.SetFaults(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.HasPrefix(r.URL.Path, "/old/") {
			http.Redirect(w, r, strings.TrimPrefix(r.URL.Path, "/old"), http.StatusTemporaryRedirect)
			return true
		}
		return false
	}, nil)
	c, err := newClient(Options{Endpoint: s.URL}, token{secret, "$HF_TOKEN"})
	if err != nil {
		t.Fatal(err)
	}
	w := c.watch(context.Background())
	defer w.end()
	resp, first, err := c.do(w, http.MethodHead, s.URL+"/old/"+gated+"/resolve/main/config.json", nil, subject{repo: gated})
	if err != nil || resp.StatusCode != 200 || first.Get("Location") == "" {
		t.Errorf("relative redirect: %v, %v", first, err)
	}
	s.SetFaults(func(w http.ResponseWriter, r *http.Request) bool {
		http.Redirect(w, r, "/again", http.StatusFound)
		return true
	}, nil)
	_, err = r.fetch(gated)
	r.fails(err, ErrServer, false, "more than 10 redirects")
	s.SetFaults(func(w http.ResponseWriter, r *http.Request) bool {
		http.Redirect(w, r, "file:///etc/passwd", http.StatusFound)
		return true
	}, nil)
	_, err = r.fetch(gated)
	r.fails(err, ErrServer, false, "redirected to no address")
}
