package hub

import (
	"context"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// answers is what a hub says: about a model, and for every file.
type answers struct {
	status int
	header http.Header
	info   []byte
	file   []byte
}

// FuzzAnswers lets a hub answer anything: [Fetch] refuses it in one plain line, or returns files.
// It ends soon, does not tell the token, and writes nothing outside of its cache folder.
func FuzzAnswers(f *testing.F) {
	var current atomic.Pointer[answers]
	hub := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a := current.Load()
		for name, values := range a.header {
			w.Header()[name] = values
		}
		w.Header().Set("Retry-After", "0")
		if strings.HasPrefix(r.URL.Path, "/api/") {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(a.status)
			_, _ = w.Write(a.info)
			return
		}
		w.WriteHeader(a.status)
		_, _ = w.Write(a.file)
	}))
	f.Cleanup(hub.Close)
	for _, name := range []string{"HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DOWNLOAD_TIMEOUT", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"} {
		f.Setenv(name, "")
	}
	f.Setenv("HF_TOKEN", secret)

	const commit = `"sha":"` + commit1 + `"`
	const empty = "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391" // git's hash of an empty file
	file := func(name, more string) string { return `{"rfilename":"` + name + `"` + more + `}` }
	list := func(files ...string) []byte {
		return []byte(`{` + commit + `,"siblings":[` + strings.Join(files, ",") + `]}`)
	}
	whole := list(file("config.json", `,"size":2,"blobId":"9e26dfeeb6e641a33dae4961196235bdb965b21b"`), file("model.safetensors", `,"size":0,"blobId":"`+empty+`"`),
		file("tokenizer.json", `,"size":0,"blobId":"`+empty+`"`))
	f.Add(uint16(200), "", whole, []byte("{}"))
	f.Add(uint16(200), "ETag: \""+empty+"\"", list(file("config.json", ""), file("model.safetensors", "")), []byte(""))
	f.Add(uint16(200), "", list("null"), []byte(""))
	for _, name := range []string{"../../outside", "/tmp/outside", `..\\outside`, "a/../../../outside", "config.json/x", ".", ""} {
		f.Add(uint16(200), "", list(file("config.json", `,"size":0,"blobId":"`+empty+`"`), file(name, `,"size":0,"blobId":"`+empty+`"`), file("model.safetensors", `,"size":0,"blobId":"../../outside"`)), []byte(""))
	}
	f.Add(uint16(200), "", list(file("config.json", `,"size":-1,"blobId":"`+empty+`"`), file("model.safetensors", `,"lfs":null,"size":9223372036854775807`)), []byte(""))
	f.Add(uint16(200), "", []byte(`{"sha":"main","siblings":{}}`), []byte(""))
	f.Add(uint16(302), "Location: http://127.0.0.1:1/", whole, []byte(""))
	f.Add(uint16(302), "Location: ://", whole, []byte(""))
	f.Add(uint16(401), "X-Error-Code: GatedRepo\nX-Error-Message: "+secret, whole, []byte(""))
	f.Add(uint16(403), "X-Error-Message: \x1b[2J", []byte(`{"error":"`+secret+`"}`), []byte(""))
	f.Add(uint16(206), "Content-Range: bytes 0-9223372036854775807/9223372036854775807", whole, []byte("{}"))
	f.Add(uint16(404), "X-Error-Code: EntryNotFound", []byte("<html>"), []byte(""))
	f.Fuzz(func(t *testing.T, status uint16, header string, info, file []byte) {
		a := &answers{status: 200 + int(status%400), header: http.Header{}, info: info, file: file}
		if status >= 200 && status < 600 {
			a.status = int(status)
		}
		for line := range strings.Lines(header) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
			// To no other machine than this one.
			if !strings.EqualFold(name, "Location") || strings.HasPrefix(value, "http://127.0.0.1:1/") || !strings.Contains(value, "/") {
				a.header[http.CanonicalHeaderKey(name)] = []string{value}
			}
		}
		current.Store(a)
		top := t.TempDir()
		dir := filepath.Join(top, "a", "b", "hub")
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		said := ""
		path, err := Fetch(ctx, public, Options{Endpoint: hub.URL, CacheDir: dir, Log: func(line string) { said += line + "\n" }})
		if ctx.Err() != nil {
			t.Fatal("did not end")
		}
		if err != nil {
			said += err.Error()
			if strings.ContainsAny(err.Error(), "\n\r\x1b") {
				t.Errorf("not one plain line: %q", err)
			}
		} else if !strings.HasPrefix(path, dir+string(filepath.Separator)) {
			t.Errorf("the model is in %s, outside of %s", path, dir)
		}
		if strings.Contains(said, secret) {
			t.Errorf("the token was told: %s", said)
		}
		_ = filepath.WalkDir(top, func(name string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() && !strings.HasPrefix(name, dir+string(filepath.Separator)) {
				t.Errorf("%s was written", name)
			}
			return nil
		})
	})
}
