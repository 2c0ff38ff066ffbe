package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/kvqbook/kvqbook/internal/asset"
	"github.com/kvqbook/kvqbook/internal/hubtest"
	"github.com/kvqbook/kvqbook/internal/testlane"
)

// What the tests' hub knows.
const (
	llama2   = "meta-llama/Llama-2-7b-chat-hf"
	licensed = "hf_readerWithTheLicence"
	stranger = "hf_readerWithoutTheLicence"
	commit   = "f5db02db724555f92da89c216ac04704f23d4590"
)

// hubUser is a reader with an environment of their own, and a hub on loopback that has a small
// model under Llama-2's name.
type hubUser struct {
	testing.TB
	hub    *hubtest.Server
	home   string
	folder string // the model's files, as they are on the hub
	all    bytes.Buffer
}

// newHubUser clears the environment. Everything that kvq prints is kept, and must hold no token.
func newHubUser(t testing.TB, token string) *hubUser {
	u := &hubUser{TB: t, home: t.TempDir(), folder: shardedModel(t)}
	entries, err := os.ReadDir(u.folder)
	if err != nil {
		t.Fatal(err)
	}
	repo := hubtest.Repo{ID: llama2, Commit: commit, Gated: true, License: "llama2", Files: []hubtest.File{{Name: "pytorch_model.bin", Data: []byte("pickle"), LFS: true}}}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(u.folder, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		repo.Files = append(repo.Files, hubtest.File{Name: e.Name(), Data: data, LFS: strings.HasSuffix(e.Name(), ".safetensors")})
	}
	u.hub = hubtest.New(t, map[string]hubtest.Token{licensed: {Account: "reader", May: []string{llama2}}, stranger: {Account: "stranger"}}, repo)
	for _, name := range []string{"HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DOWNLOAD_TIMEOUT"} {
		setenv(t, name, "")
	}
	setenv(t, "HF_TOKEN", token)
	setenv(t, "HF_HOME", u.home)
	setenv(t, "HF_ENDPOINT", u.hub.URL)
	t.Cleanup(func() {
		for _, secret := range []string{licensed, stranger} {
			if strings.Contains(u.all.String(), secret) {
				t.Errorf("the token was printed:\n%s", u.all.String())
			}
		}
	})
	return u
}

// setenv is T.Setenv, which testing.TB has too.
func setenv(t testing.TB, name, value string) {
	t.Setenv(name, value)
	if value == "" {
		os.Unsetenv(name)
	}
}

func (u *hubUser) run(in string, args ...string) (status int, out, errs string) {
	u.Helper()
	status, out, errs = runKVQ(u, in, args...)
	u.all.WriteString(out + errs)
	return status, out, errs
}

func (u *hubUser) must(in string, args ...string) (out, errs string) {
	u.Helper()
	status, out, errs := u.run(in, args...)
	if status != exitOK {
		u.Fatalf("kvq %q: status %d, %s", args, status, errs)
	}
	return out, errs
}

// fails checks that a command line ends with this status and prints one line alone.
func (u *hubUser) fails(want int, parts []string, args ...string) {
	u.Helper()
	status, out, errs := u.run("", args...)
	if status != want || out != "" {
		u.Errorf("kvq %q: status %d and %q, want %d and nothing", args, status, out, want)
	}
	lines := strings.Split(strings.TrimSuffix(errs, "\n"), "\n")
	last := lines[len(lines)-1]
	if !strings.HasPrefix(last, "kvq: ") {
		u.Errorf("kvq %q: want a line that begins with kvq:, got %q", args, errs)
	}
	for _, part := range parts {
		if !strings.Contains(last, part) {
			u.Errorf("kvq %q: want %q in the error, got %q", args, part, last)
		}
	}
	u.Logf("%s", last)
}

// shardedModel is the tiny Llama-2 of the goldens, else the made-up one, in two files with an index
// as the real one is.
func shardedModel(t testing.TB) string {
	from := tinyModel(t, nil)
	letterTokenizer(t, from)
	if goldens, err := asset.Goldens(); err == nil {
		from = t.TempDir()
		for _, name := range []string{"config.json", "generation_config.json", "model.safetensors"} {
			data, err := os.ReadFile(filepath.Join(goldens, "tiny-llama2", name))
			if err != nil {
				t.Fatal(err)
			}
			write(t, data, from, name)
		}
		letterTokenizer(t, from)
	}
	path := filepath.Join(from, "model.safetensors")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	length := binary.LittleEndian.Uint64(data)
	var tensors map[string]struct {
		DType   string `json:"dtype"`
		Shape   []int  `json:"shape"`
		Offsets [2]int `json:"data_offsets"`
	}
	if err := json.Unmarshal(data[8:8+length], &tensors); err != nil {
		t.Fatal(err)
	}
	data = data[8+length:]
	names := [2]string{"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"}
	headers, parts, index := [2]map[string]any{{}, {}}, [2][]byte{}, map[string]string{}
	i := 0
	for name, tensor := range tensors {
		if name == "__metadata__" {
			continue
		}
		shard := i % 2
		begin := len(parts[shard])
		parts[shard] = append(parts[shard], data[tensor.Offsets[0]:tensor.Offsets[1]]...)
		headers[shard][name] = map[string]any{"dtype": tensor.DType, "shape": tensor.Shape, "data_offsets": []int{begin, len(parts[shard])}}
		index[name] = names[shard]
		i++
	}
	for shard, name := range names {
		header, err := json.Marshal(headers[shard])
		if err != nil {
			t.Fatal(err)
		}
		write(t, append(append(binary.LittleEndian.AppendUint64(nil, uint64(len(header))), header...), parts[shard]...), from, name)
	}
	writeJSON(t, map[string]any{"weight_map": index}, from, "model.safetensors.index.json")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	return from
}

// letterTokenizer gives a folder a tokenizer with Llama-2's rules for blanks and the begin of a
// sequence, whose tokens are single characters: those of ASCII, and others for the rest of 256 ids.
func letterTokenizer(t testing.TB, dir string) {
	file, err := os.Open(filepath.Join("..", "..", "tokenizer", "testdata", "llama2-tokenizer.json.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	unzipped, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	var tokenizer map[string]any
	if err := json.NewDecoder(unzipped).Decode(&tokenizer); err != nil {
		t.Fatal(err)
	}
	vocabulary := map[string]int{"<unk>": 0, "<s>": 1, "</s>": 2, "▁": 3}
	for c := '!'; len(vocabulary) < 256; c++ {
		if c == '~'+1 {
			c = 0x4e00
		}
		vocabulary[string(c)] = len(vocabulary)
	}
	model := tokenizer["model"].(map[string]any)
	model["vocab"], model["merges"], model["byte_fallback"] = vocabulary, []string{}, false
	writeJSON(t, tokenizer, dir, "tokenizer.json")
	writeJSON(t, map[string]any{"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": true}, dir, "tokenizer_config.json")
}

// A reader with the licence needs these lines alone: login, then the tutorial under Llama-2's name.
// The texts are those of the same files in a folder.
func TestLlama2FromTheHub(t *testing.T) {
	testlane.Slow(t, "downloads and runs a made-up Llama 2")
	needsXLA(t)
	u := newHubUser(t, "")
	flags := []string{"--max-new-tokens", "8", "--q-group-size", "8", "--backend", "xla:cpu"} // and the tutorial's prompts
	with := func(command, model string, more ...string) []string {
		return append(append([]string{command, "--model", model}, flags...), more...)
	}
	u.fails(exitBadInput, []string{llama2 + " is gated", "no token", "kvq login"}, with("compare", llama2)...)

	out, _ := u.must(licensed+"\n", "login")
	if want := "logged in as reader, token stored in " + filepath.Join(u.home, "token") + "\n"; out != want {
		t.Errorf("login printed %q, want %q", out, want)
	}
	table, errs := u.must("", with("compare", llama2)...)
	if !strings.Contains(errs, "fetching "+llama2+": ") || !strings.Contains(errs, "(100 %)") {
		t.Errorf("no progress: %q", errs)
	}
	u.hub.Requests()
	out, _ = u.must("", with("generate", llama2, "--offline", "--json")...)
	generated := parse[generateJSON](t, out)
	want := parse[generateJSON](t, mustRun(t, "", with("generate", u.folder, "--json")...))
	if !reflect.DeepEqual(generated.Prompts, want.Prompts) || len(want.Prompts) != 2 || len(want.Prompts[0].OutputIDs) == 0 {
		t.Errorf("from the hub %+v, from the folder %+v", generated.Prompts, want.Prompts)
	}
	// compare prints the same with a mark where the texts part, in lines as wide as its columns
	for _, p := range want.Prompts {
		squeeze := func(s string) string {
			return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return strings.ContainsRune(" \n"+partMark, r) }), "")
		}
		if end := squeeze(p.Text); !strings.Contains(squeeze(table), end) || !strings.Contains(table, strings.Fields(p.Prompt)[0]) {
			t.Errorf("compare does not show %q:\n%s", end, table)
		}
	}
	// A pinned commit that is there, and --offline, ask nobody.
	for _, more := range [][]string{{"--revision", commit}, {"--offline"}, {"--revision", commit, "--offline"}} {
		out, _ := u.must("", append([]string{"memory", "--model", llama2, "--measure=false", "--q-group-size", "8", "--json"}, more...)...)
		if !strings.Contains(out, filepath.Join("snapshots", commit)) {
			t.Errorf("%q: %s", more, out)
		}
	}
	u.must("", "memory", "--model", llama2+"@"+commit, "--measure=false", "--q-group-size", "8")
	if q := u.hub.Requests(); len(q) != 0 {
		t.Errorf("asked the hub: %+v", q)
	}
}

func TestDownload(t *testing.T) {
	u := newHubUser(t, licensed)
	want := filepath.Join(u.home, "hub", "models--meta-llama--Llama-2-7b-chat-hf", "snapshots", commit)
	out, errs := u.must("", "download", llama2)
	if out != want+"\n" || !strings.HasPrefix(errs, "fetching "+llama2+": ") {
		t.Errorf("printed %q and %q, want %q", out, errs, want)
	}
	j := parse[downloadJSON](t, func() string { out, _ := u.must("", "download", llama2, "--offline", "--json"); return out }())
	if j != (downloadJSON{llama2, want}) {
		t.Errorf("%+v", j)
	}
	if out, _ := u.must("", "download", llama2+"/config.json"); out != filepath.Join(want, "config.json")+"\n" {
		t.Errorf("one file: %q", out)
	}
	u.fails(exitBadInput, []string{"2 models, want one"}, "download", llama2, llama2)
	u.fails(exitBadInput, []string{"0 models, want one"}, "download")

	// A connection that breaks is told, and picked up.
	u = newHubUser(t, licensed)
	u.hub.SetFaults(nil, hubtest.First(1, u.hub.Cut(1000)))
	if _, errs := u.must("", "download", llama2); !strings.Contains(errs, "kvq: 127.0.0.1") || !strings.Contains(errs, "the connection broke") {
		t.Errorf("said %q", errs)
	}
}

// Each failure of the hub is one line that says what to do.
func TestHubFailures(t *testing.T) {
	generate := []string{"generate", "--model", llama2}
	u := newHubUser(t, "")
	for _, c := range []struct {
		name  string
		token string
		env   [2]string
		fault hubtest.Fault
		args  []string
		want  int
		parts []string
	}{
		{"gated without a token", "", [2]string{}, nil, generate, exitBadInput, []string{llama2 + " is gated", "accept its licence", "/" + llama2, "kvq login"}},
		{"gated without access", stranger, [2]string{}, nil, generate, exitBadInput, []string{llama2 + " is gated", "the token from $HF_TOKEN has no access", "ask for it at"}},
		{"wrong token", "hf_wrong", [2]string{}, nil, generate, exitBadInput, []string{"does not accept the token from $HF_TOKEN", "expired", "put it into HF_TOKEN"}},
		{"missing model", licensed, [2]string{}, nil, []string{"generate", "--model", "org/typo"}, exitBadInput, []string{"no model org/typo", "check the name", "no file or folder org/typo either"}},
		{"missing revision", licensed, [2]string{}, nil, append(generate, "--revision", "v9"), exitBadInput, []string{`no revision "v9"`, "branch, a tag or a commit"}},
		{"missing file", licensed, [2]string{}, nil, []string{"generate", "--model", llama2 + "/model.gguf"}, exitBadInput, []string{"no file model.gguf"}},
		{"refused connection", licensed, [2]string{"HF_ENDPOINT", "http://127.0.0.1:1"}, nil, generate, exitFailure, []string{"refused", "check the network", "--offline"}},
		{"no name resolution", licensed, [2]string{"HF_ENDPOINT", "http://hub.invalid"}, nil, generate, exitFailure, []string{"no address found", "check the network"}},
		{"offline and not there", licensed, [2]string{}, nil, append(generate, "--offline"), exitBadInput, []string{"offline", "not in the cache folder", "kvq download " + llama2}},
		{"server errors", licensed, [2]string{}, hubtest.Status(503, "maintenance"), generate, exitFailure, []string{"status 503", "maintenance", "try again later"}},
		{"cache folder", licensed, [2]string{"HF_HUB_CACHE", "/dev/null/hub"}, nil, generate, exitBadInput, []string{"cache folder /dev/null/hub", "cannot be written", "HF_HUB_CACHE"}},
		{"revision of a folder", "", [2]string{}, nil, []string{"generate", "--model", u.folder, "--revision", "v1"}, exitBadInput, []string{`--revision "v1"`, "only a model of the hub"}},
		{"a path that looks like no name", "", [2]string{}, nil, []string{"generate", "--model", "models/x.gguf"}, exitBadInput, []string{"models/x.gguf", "no such file"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			u.TB = t
			setenv(t, "HF_TOKEN", c.token)
			if c.env[0] != "" {
				setenv(t, c.env[0], c.env[1])
			}
			u.hub.SetFaults(c.fault, nil)
			defer u.hub.SetFaults(nil, nil)
			u.fails(c.want, c.parts, c.args...)
			u.fails(c.want, c.parts, append(c.args, "--json")...)
			if c.token != "" && strings.Contains(u.all.String(), c.token) {
				t.Errorf("the token was printed: %s", u.all.String())
			}
		})
	}
	u.TB = t
}

func TestFullDiskOfTheHub(t *testing.T) {
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip("no /dev/full")
	}
	u := newHubUser(t, licensed)
	// the parts of all files go to the device that is always full
	for _, f := range u.hub.Repos[0].Files {
		if f.Name == "config.json" {
			blobs := filepath.Join(u.home, "hub", "models--meta-llama--Llama-2-7b-chat-hf", "blobs")
			if err := os.MkdirAll(blobs, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink("/dev/full", filepath.Join(blobs, f.Hash()+".incomplete")); err != nil {
				t.Fatal(err)
			}
		}
	}
	u.fails(exitFailure, []string{"the disk of the cache folder " + filepath.Join(u.home, "hub") + " is full", "make room", "HF_HUB_CACHE"}, "generate", "--model", llama2)
}

func TestLoginCommands(t *testing.T) {
	u := newHubUser(t, "")
	path := filepath.Join(u.home, "token")
	u.fails(exitBadInput, []string{"not logged in", "kvq login"}, "whoami")
	if out, _ := u.must("", "logout"); out != "no token was stored\n" {
		t.Errorf("logout printed %q", out)
	}
	for _, in := range []string{"", "\n", "hf_wrong\n", "two words\n"} {
		if status, out, errs := u.run(in, "login"); status != exitBadInput || out != "" || strings.Count(errs, "\n") != 1 || in != "\n" && in != "" && strings.Contains(errs, strings.TrimSpace(in)) {
			t.Errorf("login with %q: status %d, %q, %q", in, status, out, errs)
		}
	}
	// A token has no place on the command line; when it comes there, it is at least not repeated.
	for _, args := range [][]string{{"login", licensed}, {"login", "--token", licensed}, {"login", "--token=" + licensed}, {"login", "-t" + licensed}, {"login", "-" + licensed},
		{"login", "--" + licensed}, {"logout", licensed}, {"whoami", licensed}, {"whoami", "--json=" + licensed}} {
		u.fails(exitBadInput, []string{"a token is asked for, or read from standard input"}, args...)
	}
	if _, err := os.Stat(path); err == nil {
		t.Fatal("a token was stored")
	}
	u.must(licensed+"\nanother line\n", "login")
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v; want 600", info.Mode(), err)
	}
	if out, _ := u.must("", "whoami"); out != "reader (token from "+path+")\n" {
		t.Errorf("whoami printed %q", out)
	}
	setenv(t, "HF_TOKEN", stranger)
	out, _ := u.must("", "whoami", "--json")
	if j := parse[whoAmIJSON](t, out); j != (whoAmIJSON{"stranger", "$HF_TOKEN"}) {
		t.Errorf("whoami --json: %+v", j)
	}
	if _, errs := u.must(licensed, "login"); errs != "kvq: warning: $HF_TOKEN is set and wins over the stored token\n" {
		t.Errorf("login said %q", errs)
	}
	if out, errs := u.must("", "logout"); out != "removed "+path+"\n" || errs != "kvq: warning: $HF_TOKEN is set and still logs you in\n" {
		t.Errorf("logout printed %q, said %q", out, errs)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("the token is still there")
	}
}

// Ctrl-C while a download hangs ends kvq at once; the next one goes on where it stopped.
func TestInterruptedDownload(t *testing.T) {
	u := newHubUser(t, licensed)
	stalled := make(chan bool, 10)
	u.hub.SetFaults(nil, func(w http.ResponseWriter, r *http.Request) bool {
		stalled <- true
		return u.hub.Stall(1000)(w, r)
	})
	c := exec.Command(os.Args[0], "download", llama2)
	c.Env = append(os.Environ(), asKVQ+"=1")
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	// less than what ends a stalled connection
	watchdog := time.AfterFunc(20*time.Second, func() { _ = c.Process.Kill() })
	defer watchdog.Stop()
	<-stalled
	parts := filepath.Join(u.home, "hub", "*", "blobs", "*.incomplete")
	for range 1000 {
		list, _ := filepath.Glob(parts)
		written := false
		for _, name := range list {
			info, err := os.Stat(name)
			written = written || err == nil && info.Size() == 1000
		}
		if written {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err := c.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	_ = c.Wait() // its status is what counts
	u.all.WriteString(out.String() + errs.String())
	if got := c.ProcessState.ExitCode(); got != exitInterrupted || !strings.HasSuffix(errs.String(), "kvq: interrupted\n") || out.Len() > 0 {
		t.Errorf("status %d, %q, %q; want %d, interrupted", got, out.String(), errs.String(), exitInterrupted)
	}
	u.hub.SetFaults(nil, nil)
	u.hub.Requests()
	if _, errs := u.must("", "download", llama2); !strings.Contains(errs, "going on at 1 kB") {
		t.Errorf("said %q", errs)
	}
	resumed := false
	for _, q := range u.hub.Requests() {
		resumed = resumed || q.Range == "bytes=1000-"
	}
	if !resumed {
		t.Error("not resumed")
	}
}

// A done context before anything began.
func TestInterruptBeforeTheHub(t *testing.T) {
	u := newHubUser(t, licensed)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	var out, errs bytes.Buffer
	if status := execute(ctx, []string{"generate", "--model", llama2}, strings.NewReader(""), &out, &errs); status != exitInterrupted || errs.String() != "kvq: interrupted\n" {
		u.Errorf("status %d, said %q", status, errs.String())
	}
}
