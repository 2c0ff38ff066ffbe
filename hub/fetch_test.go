package hub

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kvqbook/kvqbook/internal/hubtest"
)

func is(err, kind error) bool { return errors.Is(err, kind) }

// A reader with the licence gets the files, in the layout that Python's tools read; the storage
// never sees the token.
func TestFetchGated(t *testing.T) {
	s := newHub(t)
	r := newReader(t, s, secret)
	folder := r.must(gated)
	repo := filepath.Join(r.home, "hub", "models--meta-llama--Llama-2-7b-chat-hf")
	if want := filepath.Join(repo, "snapshots", commit1); folder != want {
		t.Errorf("folder %s, want %s", folder, want)
	}
	r.holds(folder, neededFiles...)
	if ref, err := os.ReadFile(filepath.Join(repo, "refs", "main")); string(ref) != commit1 {
		t.Errorf("refs/main holds %q, %v; want %s", ref, err, commit1)
	}
	for _, f := range modelFiles() {
		target, err := os.Readlink(filepath.Join(folder, f.Name))
		if err != nil {
			continue // not needed
		}
		if want := filepath.Join("..", "..", "blobs", f.Hash()); target != want {
			t.Errorf("%s links to %s, want %s", f.Name, target, want)
		}
	}
	storage := 0
	for _, q := range s.Requests() {
		if q.Storage {
			storage++
		}
		if want := "Bearer " + secret; q.Storage && q.Authorization != "" || !q.Storage && q.Authorization != want {
			t.Errorf("%s %s: Authorization %q (storage: %v)", q.Method, q.Path, q.Authorization, q.Storage)
		}
	}
	if storage != 3 {
		t.Errorf("%d requests at the storage, want one for each of 3 files", storage)
	}
	last := r.progress[len(r.progress)-1]
	if last.Done != last.Total || last.Total < 505_000 {
		t.Errorf("the last progress is %+v, want all of it", last)
	}
	for i := 1; i < len(r.progress); i++ {
		if r.progress[i].Done < r.progress[i-1].Done || r.progress[i].Total != last.Total {
			t.Fatalf("progress %+v after %+v", r.progress[i], r.progress[i-1])
		}
	}
	if left := r.leftovers(); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}

	// Once more: only the question what main is.
	if again := r.must(gated); again != folder {
		t.Errorf("second time %s", again)
	}
	if q := s.Requests(); len(q) != 1 {
		t.Errorf("second time %d requests, want 1: %+v", len(q), q)
	}
}

func TestRevisions(t *testing.T) {
	s := newHub(t)
	for _, c := range []struct{ id, option, ref, commit string }{
		{public, "", "main", commit1},
		{public + "@v1", "", "v1", commit2},
		{public, "v1", "v1", commit2},
		{public + "@v1", "v1", "v1", commit2},
		{public + "@refs/pr/1", "", "refs/pr/1", commit2},
		{public + "@" + commit2, "", "", commit2},
	} {
		t.Run(c.id+c.option, func(t *testing.T) {
			r := newReader(t, s, "")
			folder := r.must(c.id, func(o *Options) { o.Revision = c.option })
			if filepath.Base(folder) != c.commit {
				t.Errorf("folder %s, want commit %s", folder, c.commit)
			}
			r.holds(folder, neededFiles...)
			refs := filepath.Join(r.home, "hub", "models--org--model", "refs")
			if c.ref == "" {
				s.Requests()
				if again := r.must(c.id); again != folder || len(s.Requests()) != 0 {
					t.Errorf("a commit that is there: %s, want it without a request", again)
				}
			} else if text, err := os.ReadFile(filepath.Join(refs, c.ref)); string(text) != c.commit {
				t.Errorf("refs/%s holds %q, %v; want %s", c.ref, text, err, c.commit)
			}
			// The same by the same name, offline.
			if again := r.must(c.id, func(o *Options) { o.Revision, o.Offline = c.option, true }); again != folder {
				t.Errorf("offline %s, want %s", again, folder)
			}
		})
	}
}

// Two revisions with the same files share their blobs.
func TestSecondRevisionIsFree(t *testing.T) {
	s := newHub(t)
	r := newReader(t, s, "")
	r.must(public)
	s.Requests()
	r.holds(r.must(public+"@v1"), neededFiles...)
	if q := s.Requests(); len(q) != 1 {
		t.Errorf("%d requests, want one: %+v", len(q), q)
	}
}

func TestFetchOneFile(t *testing.T) {
	s := newHub(t)
	r := newReader(t, s, "")
	path := r.must("org/gguf/q4/model.Q4_1.gguf")
	if want := filepath.Join(r.home, "hub", "models--org--gguf", "snapshots", commit1, "q4", "model.Q4_1.gguf"); path != want {
		t.Errorf("path %s, want %s", path, want)
	}
	if data, err := os.ReadFile(path); string(data) != string(content(6, 4000)) {
		t.Errorf("%d bytes, %v", len(data), err)
	}
	if again := r.must("org/gguf/q4/model.Q4_1.gguf", func(o *Options) { o.Offline = true }); again != path {
		t.Errorf("offline %s", again)
	}
}

func TestPrivateModel(t *testing.T) {
	s := newHub(t)
	newReader(t, s, secret).must("org/secret")
	r := newReader(t, s, stranger)
	_, err := r.fetch("org/secret")
	r.fails(err, ErrNoModel, true, "no model org/secret", "the token from $HF_TOKEN may see it")
}

// A mirror that lists names alone: sizes and hashes come from the headers of the files.
func TestListWithoutHashes(t *testing.T) {
	s := newHub(t)
	s.SetFaults(func(w http.ResponseWriter, r *http.Request) bool {
		r.URL.RawQuery = "" // without blobs=true
		return false
	}, nil)
	r := newReader(t, s, secret)
	r.holds(r.must(gated), neededFiles...)
}

// Where links cannot be made, files are files.
func TestFileInPlaceOfLink(t *testing.T) {
	s := newHub(t)
	r := newReader(t, s, "")
	folder := r.must(public)
	config := filepath.Join(folder, "config.json")
	if err := os.Remove(config); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(config, []byte(`{"model_type": "llama"}`), 0o644); err != nil {
		t.Fatal(err)
	}
	s.Requests()
	r.must(public)
	if q := s.Requests(); len(q) != 1 {
		t.Errorf("%d requests, want one: %+v", len(q), q)
	}
}

// A changed branch gives the new commit, and the old one stays.
func TestBranchMoves(t *testing.T) {
	s := newHub(t)
	r := newReader(t, s, "")
	old := r.must(public)
	s.Repos[1].Commit = "c3defe8b3c1a1d9e0dd0b1c2b0d15c7d3c1a0003"
	if folder := r.must(public); folder == old {
		t.Errorf("still %s", folder)
	}
	r.holds(r.must(public+"@"+commit1), neededFiles...)
}

func TestOffline(t *testing.T) {
	s := newHub(t)
	r := newReader(t, s, "")
	offline := func(o *Options) { o.Offline = true }
	_, err := r.fetch(public, offline)
	r.fails(err, ErrOffline, true, "offline", public, "not in the cache folder "+filepath.Join(r.home, "hub"), "kvq download "+public)

	folder := r.must(public)
	s.Requests()
	for _, name := range []string{"HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"} {
		t.Setenv(name, "1")
		if got := r.must(public); got != folder {
			t.Errorf("$%s: %s, want %s", name, got, folder)
		}
		t.Setenv(name, "0")
	}
	if err := os.Remove(filepath.Join(folder, "model-00002-of-00002.safetensors")); err != nil {
		t.Fatal(err)
	}
	_, err = r.fetch(public, offline)
	r.fails(err, ErrOffline, true, "model-00002-of-00002.safetensors is missing")
	if q := s.Requests(); len(q) != 0 {
		t.Errorf("offline, and yet: %+v", q)
	}
}

// Without a connection, what is in the cache does, and a line says so.
func TestUnreachableHubButCached(t *testing.T) {
	s := newHub(t)
	r := newReader(t, s, "")
	folder := r.must(public)
	s.SetFaults(hubtest.Status(503, "maintenance"), nil)
	if got := r.must(public); got != folder {
		t.Errorf("%s, want %s", got, folder)
	}
	if said := r.said.String(); !strings.Contains(said, "using what is in the cache") || !strings.Contains(said, "maintenance") {
		t.Errorf("said %s", said)
	}
	t.Setenv("HF_ENDPOINT", "http://127.0.0.1:1")
	if got := r.must(public); got != folder {
		t.Errorf("%s, want %s", got, folder)
	}
}

func TestParseID(t *testing.T) {
	for _, text := range []string{"gpt2", "org/name", "org/na.me-2_b@main", "org/name/a/b.gguf", "org/name/b.gguf@refs/pr/3", "org/name@" + commit1} {
		id, err := ParseID(text)
		if err != nil || id.String() != text {
			t.Errorf("ParseID(%q) = %v, %v", text, id, err)
		}
	}
	for _, text := range []string{"", "/", "org/", "/name", "../name", "org/..", "org/a--b", "org/name@", "org/name@../x", "org/name@a b", "org/name@a/../../b",
		"org/name/", "org/name/../x", "org/name//x", "org/name/a\\b", "org/na me", "https://huggingface.co/org/name", "-x/y", "org/name.git", "org/" + strings.Repeat("x", 200)} {
		if id, err := ParseID(text); !is(err, ErrID) {
			t.Errorf("ParseID(%q) = %v, %v; want ErrID", text, id, err)
		}
	}
	r := newReader(t, nil, "")
	_, err := r.fetch("org/name@v1", func(o *Options) { o.Revision = "v2" })
	r.fails(err, ErrID, true, "two revisions")
	_, err = r.fetch("org/name", func(o *Options) { o.Revision = "../../x" })
	r.fails(err, ErrID, true, "../../x")
	_, err = r.fetch("org name")
	r.fails(err, ErrID, true, "org name", "meta-llama/Llama-2-7b-chat-hf")
}

// A hub cannot place files outside of the model's folder.
func TestMaliciousHub(t *testing.T) {
	for _, c := range []struct{ name, answer, file string }{
		{"shard elsewhere", "", `{"weight_map": {"a": "../../../../outside.safetensors"}}`},
		{"hash with a path", `{"sha": "` + commit1 + `", "siblings": [{"rfilename": "config.json", "size": 1, "blobId": "../../../outside"}, {"rfilename": "model.safetensors"}]}`, ""},
		{"commit with a path", `{"sha": "../../outside", "siblings": []}`, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newHub(t)
			if c.file != "" {
				for i, f := range s.Repos[1].Files {
					if f.Name == indexFile {
						s.Repos[1].Files[i].Data = []byte(c.file)
					}
				}
			} else {
				s.SetFaults(func(w http.ResponseWriter, r *http.Request) bool {
					if !strings.HasPrefix(r.URL.Path, "/api/") {
						return false
					}
					fmt.Fprint(w, c.answer)
					return true
				}, nil)
			}
			r := newReader(t, s, "")
			path, err := r.fetch(public)
			if err == nil {
				t.Fatalf("fetched %s", path)
			}
			_ = filepath.WalkDir(filepath.Dir(r.home), func(path string, _ os.DirEntry, _ error) error {
				if strings.Contains(filepath.Base(path), "outside") {
					t.Errorf("made %s", path)
				}
				return nil
			})
		})
	}
}

// A list of files with an entry that is none is refused, wherever the entry stands and whatever is
// asked for.
func TestFilesWithoutNames(t *testing.T) {
	const named = `{"rfilename": "config.json", "size": 1, "blobId": "` + commit1 + `"}`
	for _, list := range []string{"null", named + ", null", "null, " + named, "{}", `{"rfilename": null}`, `{"rfilename": ""}`} {
		for _, id := range []string{public, public + "/config.json", public + "/model.gguf"} {
			s := newHub(t)
			s.SetFaults(func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.HasPrefix(r.URL.Path, "/api/") {
					return false
				}
				fmt.Fprintf(w, `{"sha": "%s", "siblings": [%s]}`, commit1, list)
				return true
			}, nil)
			r := newReader(t, s, "")
			_, err := r.fetch(id)
			r.fails(err, ErrServer, false, public, "without a name")
		}
	}
}

// A name that no folder can hold is told as whose it is: the hub's, or the one that was asked for.
// Nobody hears that the cache folder cannot be written.
func TestNamesNoFolderHolds(t *testing.T) {
	long := strings.Repeat("x", 300)
	for _, name := range []string{"tokenizer\\u0000.json", "tokenizer\\u001b.json", "tokenizer" + long + ".json"} {
		s := newHub(t)
		s.SetFaults(func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.HasPrefix(r.URL.Path, "/api/") {
				return false
			}
			var list []string
			for _, f := range s.Repos[0].Files {
				list = append(list, fmt.Sprintf(`{"rfilename": %q}`, f.Name))
			}
			fmt.Fprintf(w, `{"sha": "%s", "siblings": [%s, {"rfilename": "%s"}]}`, s.Repos[0].Commit, strings.Join(list, ", "), name)
			return true
		}, nil)
		r := newReader(t, s, "")
		_, err := r.fetch(public)
		r.fails(err, ErrServer, false, public, "no folder can hold", "HF_ENDPOINT")
	}
	r := newReader(t, nil, "")
	for _, id := range []string{"org/name/a\x00.gguf", "org/name/" + long + ".gguf", "org/name/" + strings.Repeat("a/", 600) + "a.gguf", "org/name/a\n.gguf"} {
		_, err := r.fetch(id)
		r.fails(err, ErrID, true, "org/name", "cannot be a file of a model")
		if len(err.Error()) > 700 {
			t.Errorf("a line of %d bytes: %v", len(err.Error()), err)
		}
	}
	_, err := r.fetch("org/name@" + long[:250])
	r.fails(err, ErrID, true, "no revision")
}

// Hugging Face's own library reads what Fetch made, and Fetch what it made.
func TestPythonSharesTheCache(t *testing.T) {
	python := os.Getenv("KVQ_HF_PYTHON")
	if python == "" {
		t.Skip("KVQ_HF_PYTHON names no Python with huggingface_hub")
	}
	s := newHub(t)
	run := func(r *reader, code string) string {
		t.Helper()
		c := exec.Command(python, "-c", "from huggingface_hub import snapshot_download, whoami\n"+code)
		c.Env = append(os.Environ(), "HF_HUB_DISABLE_XET=1", "HF_HUB_DISABLE_PROGRESS_BARS=1", "HF_HUB_DISABLE_TELEMETRY=1")
		var errs strings.Builder
		c.Stderr = &errs
		out, err := c.Output()
		if err != nil {
			t.Fatalf("%v: %s", err, errs.String())
		}
		return strings.TrimSpace(string(out))
	}
	r := newReader(t, s, secret)
	folder := r.must(gated)
	if got := run(r, `print(snapshot_download("`+gated+`", local_files_only=True))`); got != folder {
		t.Errorf("Python finds %s, want %s", got, folder)
	}
	s.Requests()
	if got := run(r, `print(snapshot_download("`+gated+`", allow_patterns=["*.json", "model*.safetensors", "tokenizer.model"]))`); got != folder {
		t.Errorf("Python fetches %s, want %s", got, folder)
	}
	for _, q := range s.Requests() {
		if q.Method == "GET" && strings.Contains(q.Path, "/resolve/") {
			t.Errorf("Python fetched %s again", q.Path)
		}
	}
	r = newReader(t, s, secret)
	folder = run(r, `print(snapshot_download("`+gated+`", allow_patterns=["*.json", "model*.safetensors", "tokenizer.model"]))`)
	s.Requests()
	if got := r.must(gated); got != folder {
		t.Errorf("Fetch returns %s, Python made %s", got, folder)
	}
	if q := s.Requests(); len(q) != 1 {
		t.Errorf("%d requests after Python's, want one: %+v", len(q), q)
	}
	r.holds(folder, neededFiles...)

	// The same token file.
	r = newReader(t, s, "")
	if _, err := Login(context.Background(), "", secret); err != nil {
		t.Fatal(err)
	}
	if got := run(r, `print(whoami()["name"])`); got != "reader" {
		t.Errorf("Python is %q, want reader", got)
	}
}
