package harm

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/kvqbook/kvqbook/hub"
	"github.com/kvqbook/kvqbook/internal/hubtest"
	"github.com/kvqbook/kvqbook/internal/soak"
)

func init() { soak.RegisterChild("download", download) }

// Of the hub that downloads come from.
const (
	hubModel  = "org/gated"
	hubToken  = "hf_soakSoakSoakSoakSoakSoakSoakSoakSo"
	hubCommit = "c1defe8b3c1a1d9e0dd0b1c2b0d15c7d3c1a0001"
)

// startHub starts a hub with a gated model of some 48 MB.
func startHub() (s *hubtest.Server, stop func()) {
	random := rand.New(rand.NewPCG(1, 2))
	shard := func(n int) []byte {
		data := make([]byte, n)
		for i := range data {
			data[i] = byte(random.Uint32())
		}
		return data
	}
	return hubtest.Start(map[string]hubtest.Token{hubToken: {Account: "reader", May: []string{hubModel}}},
		hubtest.Repo{ID: hubModel, Commit: hubCommit, Gated: true, Files: []hubtest.File{
			{Name: "config.json", Data: []byte(`{"model_type": "llama"}`)},
			{Name: "model-00001-of-00002.safetensors", Data: shard(32 << 20), LFS: true},
			{Name: "model-00002-of-00002.safetensors", Data: shard(16 << 20), LFS: true},
			{Name: "model.safetensors.index.json", Data: []byte(`{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}`)},
			{Name: "tokenizer.json", Data: []byte(`{"version": "1.0"}`)},
		}})
}

// download fetches the hub's model: the endpoint and the cache folder are its arguments.
func download(args []string) error {
	fmt.Println("fetching")
	path, err := hub.Fetch(context.Background(), hubModel, hub.Options{Endpoint: args[0], CacheDir: args[1],
		Log: func(line string) { fmt.Println(line) }})
	if err == nil {
		fmt.Println("fetched", path)
	}
	return err
}

// killDownload kills a download, up to three times, each of them a try; the next one completes it.
// Every file has its content then, and the token is nowhere.
func killDownload(ctx context.Context, s *soak.Sitting, random *rand.Rand, server *hubtest.Server) error {
	dir, err := os.MkdirTemp(s.Folder(), "download-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	fetch := func() (*process, error) {
		cmd := s.Child(ctx, "download", server.URL, dir)
		cmd.Env = append(cmd.Env, "HF_TOKEN="+hubToken)
		return start(cmd)
	}
	var said strings.Builder
	kills := 0
	for range 1 + random.IntN(3) {
		p, err := fetch()
		if err != nil {
			return err
		}
		if !p.says("fetching", time.Minute) {
			p.kill(true)
			return fmt.Errorf("the download did not begin: %s", &p.out)
		}
		time.Sleep(time.Duration(random.Int64N(int64(400 * time.Millisecond))))
		if p.running() {
			kills++
		}
		p.kill(true)
		said.WriteString(p.out.String())
	}
	p, err := fetch()
	if err != nil {
		return err
	}
	err = <-p.ended
	said.WriteString(p.out.String())
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		s.Fail(nil, "a download after a kill: %v: %s", err, &p.out)
		return nil
	}
	for _, file := range server.Repos[0].Files {
		path := filepath.Join(dir, "models--org--gated", "snapshots", hubCommit, file.Name)
		if data, err := os.ReadFile(path); err != nil || !bytes.Equal(data, file.Data) {
			s.Fail(nil, "%s after a kill and a whole download: %d bytes, %v, want the hub's %d", file.Name, len(data), err, len(file.Data))
		}
	}
	if strings.Contains(said.String(), hubToken) {
		s.Fail([]byte(said.String()), "a killed download told the token")
	}
	s.Tries("download", kills)
	return requireNowhere(s, dir, hubToken)
}

// requireNowhere looks for a text in all files below a folder.
func requireNowhere(s *soak.Sitting, dir, text string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if err == nil && bytes.Contains(data, []byte(text)) {
			s.Fail(nil, "%s holds what it must not", path)
		}
		return err
	})
}
