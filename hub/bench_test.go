package hub

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/kvqbook/kvqbook/internal/hubtest"
)

// BenchmarkFetch is what a download costs beside the network: receiving, hashing and writing, over
// loopback.
func BenchmarkFetch(b *testing.B) {
	file := hubtest.File{Name: "model.gguf", Data: content(1, 256<<20), LFS: true}
	info := fmt.Sprintf(`{"sha": "%s", "siblings": [{"rfilename": "model.gguf", "lfs": {"sha256": "%s", "size": %d}}]}`, commit1, file.Hash(), len(file.Data))
	// Not hubtest.Server, which hashes its files at each request.
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Has("blobs") {
			fmt.Fprint(w, info)
			return
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(file.Data))
	}))
	defer s.Close()
	b.Setenv("HF_HOME", b.TempDir()) // no token
	b.SetBytes(int64(len(file.Data)))
	for b.Loop() {
		if _, err := Fetch(context.Background(), public+"/model.gguf", Options{Endpoint: s.URL, CacheDir: b.TempDir()}); err != nil {
			b.Fatal(err)
		}
	}
}
