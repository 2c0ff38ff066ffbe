package hub

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kvqbook/kvqbook/internal/hubtest"
	"github.com/kvqbook/kvqbook/internal/usererr"
)

func TestMain(m *testing.M) {
	firstWait = time.Millisecond
	os.Exit(m.Run())
}

// What the tests' hub knows.
const (
	gated    = "meta-llama/Llama-2-7b-chat-hf"
	public   = "org/model"
	secret   = "hf_readerWithTheLicence"
	stranger = "hf_readerWithoutTheLicence"
	commit1  = "c1defe8b3c1a1d9e0dd0b1c2b0d15c7d3c1a0001"
	commit2  = "c2defe8b3c1a1d9e0dd0b1c2b0d15c7d3c1a0002"
)

// content is made-up bytes.
func content(seed uint64, n int) []byte {
	data := make([]byte, n)
	random := rand.New(rand.NewPCG(seed, 1))
	for i := range data {
		data[i] = byte(random.Uint32())
	}
	return data
}

// modelFiles are those of a sharded model on the hub, with others beside them that nobody needs
// here.
func modelFiles() []hubtest.File {
	return []hubtest.File{
		{Name: ".gitattributes", Data: []byte("*.bin lfs\n")},
		{Name: "README.md", Data: []byte("# model\n")},
		{Name: "config.json", Data: []byte(`{"model_type": "llama"}`)},
		{Name: "generation_config.json", Data: []byte(`{}`)},
		{Name: "model-00001-of-00002.safetensors", Data: content(1, 300_000), LFS: true},
		{Name: "model-00002-of-00002.safetensors", Data: content(2, 200_000), LFS: true},
		{Name: "consolidated.safetensors", Data: content(9, 1000), LFS: true},
		{Name: "model.safetensors.index.json", Data: []byte(`{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}`)},
		{Name: "onnx/model.onnx", Data: content(3, 1000), LFS: true},
		{Name: "pytorch_model-00001-of-00001.bin", Data: content(4, 1000), LFS: true},
		{Name: "special_tokens_map.json", Data: []byte(`{"a": 1}`)},
		{Name: "tokenizer.json", Data: []byte(`{"version": "1.0"}`)},
		{Name: "tokenizer.model", Data: content(5, 5000), LFS: true},
		{Name: "tokenizer_config.json", Data: []byte(`{"b": 2}`)},
	}
}

// neededFiles of those.
var neededFiles = []string{
	"config.json", "generation_config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
	"model.safetensors.index.json", "special_tokens_map.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json",
}

// newHub starts a hub with a gated and a public model.
func newHub(t *testing.T) *hubtest.Server {
	tokens := map[string]hubtest.Token{
		secret:   {Account: "reader", May: []string{gated, "org/secret"}},
		stranger: {Account: "stranger"},
	}
	return hubtest.New(t, tokens,
		hubtest.Repo{ID: gated, Commit: commit1, Gated: true, Files: modelFiles()},
		hubtest.Repo{ID: public, Commit: commit1, Refs: map[string]string{"v1": commit2, "refs/pr/1": commit2}, Files: modelFiles()},
		hubtest.Repo{ID: "org/secret", Commit: commit1, Private: true, Files: modelFiles()},
		hubtest.Repo{ID: "org/gguf", Commit: commit1, Files: []hubtest.File{{Name: "q4/model.Q4_1.gguf", Data: content(6, 4000), LFS: true}, {Name: "config.json", Data: []byte("{}")}}},
		hubtest.Repo{ID: "org/pickle", Commit: commit1, Files: []hubtest.File{{Name: "pytorch_model.bin", Data: content(6, 4000), LFS: true}, {Name: "config.json", Data: []byte("{}")}}},
	)
}

// reader is a user with an environment of their own. Everything that the package says to them is
// kept, and must never hold a token.
type reader struct {
	*testing.T
	home     string
	mu       sync.Mutex
	said     bytes.Buffer
	progress []Progress
}

// newReader clears the environment. token "" is none.
func newReader(t *testing.T, s *hubtest.Server, token string) *reader {
	r := &reader{T: t, home: t.TempDir()}
	for _, name := range []string{"HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HUB_OFFLINE",
		"TRANSFORMERS_OFFLINE", "HF_HUB_DOWNLOAD_TIMEOUT", "XDG_CACHE_HOME", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"} {
		t.Setenv(name, "") // restored at the end
		os.Unsetenv(name)
	}
	t.Setenv("HF_TOKEN", token)
	t.Setenv("HF_HOME", r.home)
	if s != nil {
		t.Setenv("HF_ENDPOINT", s.URL)
	}
	t.Cleanup(func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, s := range []string{secret, stranger} {
			if strings.Contains(r.said.String(), s) {
				t.Errorf("the token was told:\n%s", r.said.String())
			}
		}
		if t.Failed() {
			t.Logf("said:\n%s", r.said.String())
		}
	})
	return r
}

func (r *reader) say(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Fprintf(&r.said, format+"\n", args...)
}

func (r *reader) options() Options {
	return Options{
		Log:      func(line string) { r.say("%s", line) },
		Progress: func(p Progress) { r.mu.Lock(); defer r.mu.Unlock(); r.progress = append(r.progress, p) },
	}
}

func (r *reader) fetch(id string, change ...func(*Options)) (string, error) {
	o := r.options()
	for _, c := range change {
		c(&o)
	}
	path, err := Fetch(context.Background(), id, o)
	r.say("%q, %v, %+v, %#v", path, err, err, err)
	return path, err
}

// must fetches what has to work.
func (r *reader) must(id string, change ...func(*Options)) string {
	r.Helper()
	path, err := r.fetch(id, change...)
	if err != nil {
		r.Fatalf("Fetch(%q): %v", id, err)
	}
	return path
}

// fails checks an error: kind, whose fault, one line, what it says.
func (r *reader) fails(err, kind error, user bool, want ...string) {
	r.Helper()
	if err == nil {
		r.Fatalf("no error, want %v", kind)
	}
	for _, k := range []error{ErrID, ErrGated, ErrToken, ErrNoModel, ErrNoFile, ErrOffline, ErrNetwork, ErrServer, ErrDiskFull, ErrCorrupt, ErrCache} {
		if is(err, k) != (k == kind) {
			r.Errorf("is %q: %v; the error: %v", k, is(err, k), err)
		}
	}
	if usererr.Is(err) != user {
		r.Errorf("the user's fault: %v, want %v: %v", usererr.Is(err), user, err)
	}
	if strings.ContainsAny(err.Error(), "\n\r\x1b") {
		r.Errorf("not one plain line: %q", err)
	}
	for _, part := range want {
		if !strings.Contains(err.Error(), part) {
			r.Errorf("want %q in the error: %v", part, err)
		}
	}
	r.Logf("its line: %v", err)
}

// holds checks a folder's files against those of the hub, and that there are no others.
func (r *reader) holds(folder string, names ...string) {
	r.Helper()
	files := map[string][]byte{}
	for _, f := range modelFiles() {
		files[f.Name] = f.Data
	}
	for _, name := range names {
		data, err := os.ReadFile(filepath.Join(folder, name))
		if err != nil || !bytes.Equal(data, files[name]) {
			r.Errorf("%s: %d bytes, %v; want the %d of the hub", name, len(data), err, len(files[name]))
		}
	}
	entries, err := os.ReadDir(folder)
	if err != nil || len(entries) != len(names) {
		r.Errorf("%d files in %s, %v; want %q", len(entries), folder, err, names)
	}
}

// leftovers are partial files in the cache.
func (r *reader) leftovers() []string {
	list, _ := filepath.Glob(filepath.Join(r.home, "hub", "*", "blobs", "*"+incomplete))
	return list
}
