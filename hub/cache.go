package hub

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	gohub "github.com/gomlx/go-huggingface/hub"
)

// CacheDir is the folder where Hugging Face's own tools keep models: $HF_HUB_CACHE, else "hub" in
// $HF_HOME, else in huggingface in $XDG_CACHE_HOME or ~/.cache.
func CacheDir() (string, error) {
	for _, name := range []string{"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"} {
		if dir := os.Getenv(name); dir != "" {
			return expand(dir)
		}
	}
	dir, err := home()
	return filepath.Join(dir, "hub"), err
}

// cache is one model's part of the cache folder:
//
//	models--org--name/refs/main                       the commit that main was, last time the hub was asked
//	models--org--name/blobs/<hash>                    files, by the hash of their content; <hash>.incomplete: parts
//	models--org--name/snapshots/<commit>/config.json  links to blobs
//	.locks/models--org--name/<hash>.lock              held while a blob is written
//
// https://huggingface.co/docs/huggingface_hub/guides/manage-cache
type cache struct{ root, name string }

func newCache(root, repo string) cache {
	parts := append([]string{string(gohub.RepoTypeModel)}, strings.Split(repo, "/")...)
	return cache{root, strings.Join(parts, gohub.RepoIdSeparator)}
}

// repoOfFolder is the model whose files are in a folder of that name, as newCache names it.
func repoOfFolder(name string) (repo string, ok bool) {
	repo, ok = strings.CutPrefix(name, string(gohub.RepoTypeModel)+gohub.RepoIdSeparator)
	return strings.ReplaceAll(repo, gohub.RepoIdSeparator, "/"), ok
}

// RepoOf is the model, "org/name", whose snapshot in a cache folder path is, as Fetch returns it.
func RepoOf(path string) (repo string, ok bool) {
	snapshots := filepath.Dir(path)
	if filepath.Base(snapshots) != "snapshots" {
		return "", false
	}
	return repoOfFolder(filepath.Base(filepath.Dir(snapshots)))
}

func (c cache) ref(revision string) string {
	return filepath.Join(c.root, c.name, "refs", filepath.FromSlash(revision))
}
func (c cache) blob(hash string) string { return filepath.Join(c.root, c.name, "blobs", hash) }
func (c cache) lock(hash string) string { return filepath.Join(c.root, ".locks", c.name, hash+".lock") }
func (c cache) snapshot(commit string) string {
	return filepath.Join(c.root, c.name, "snapshots", commit)
}
func (c cache) pointer(commit, file string) string {
	return filepath.Join(c.snapshot(commit), filepath.FromSlash(file))
}

// commit is what a revision was, last time the hub was asked; "" if it never was.
func (c cache) commit(revision string) string {
	if commitName.MatchString(revision) {
		return revision
	}
	text, err := os.ReadFile(c.ref(revision))
	commit := strings.TrimSpace(string(text))
	if err != nil || !commitName.MatchString(commit) {
		return ""
	}
	return commit
}

// setCommit remembers what a revision is.
func (c cache) setCommit(revision, commit string) error {
	if revision == commit || c.commit(revision) == commit {
		return nil
	}
	path := c.ref(revision)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return cacheError(c.root, err)
	}
	// who reads the ref sees the old commit or the new one, never half of it
	temporary := path + ".incomplete"
	if err := os.WriteFile(temporary, []byte(commit), 0o644); err != nil {
		return cacheError(c.root, err)
	}
	if err := os.Rename(temporary, path); err != nil {
		return cacheError(c.root, err)
	}
	return nil
}

// link makes a blob appear as a file of a snapshot.
func (c cache) link(commit string, e entry) error {
	pointer, blob := c.pointer(commit, e.name), c.blob(e.hash)
	if err := os.MkdirAll(filepath.Dir(pointer), 0o755); err != nil {
		return cacheError(c.root, err)
	}
	if err := os.Remove(pointer); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return cacheError(c.root, err)
	}
	// relative, so that the cache folder may move
	target, err := filepath.Rel(filepath.Dir(pointer), blob)
	if err != nil {
		target = blob
	}
	if err := os.Symlink(target, pointer); err == nil {
		return nil
	}
	// A file system without symbolic links: the file itself moves there, as Python does it.
	if err := os.Rename(blob, pointer); err != nil {
		return cacheError(c.root, err)
	}
	return nil
}

// has says that a file of a snapshot is there, as the hub has it.
func (c cache) has(commit string, e entry) bool {
	path := c.pointer(commit, e.name)
	info, err := os.Stat(path)
	if err != nil || info.Size() != e.size {
		return false
	}
	target, err := os.Readlink(path)
	// a file that moved there was checked before
	return err != nil || filepath.Base(target) == e.hash
}

// missing returns the first file that a snapshot lacks, "" if it is complete. tokenizer says that
// one has to be there.
func (c cache) missing(commit string, id ID, tokenizer bool) string {
	exists := func(file string) bool {
		info, err := os.Stat(c.pointer(commit, file)) // follows the link
		return err == nil && info.Mode().IsRegular()
	}
	if id.File != "" {
		if !exists(id.File) {
			return id.File
		}
		return ""
	}
	if !exists(configFile) {
		return configFile
	}
	if tokenizer && !exists("tokenizer.json") && !exists("tokenizer.model") {
		return "tokenizer.json"
	}
	data, err := os.ReadFile(c.pointer(commit, indexFile))
	if err != nil {
		if !exists(weightsFile) {
			return weightsFile
		}
		return ""
	}
	shards, err := shardsOf(data)
	if err != nil {
		return indexFile
	}
	for _, shard := range shards {
		if !exists(shard) {
			return shard
		}
	}
	return ""
}

// Names of files in a model's folder.
const (
	configFile  = "config.json"
	weightsFile = "model.safetensors"
	indexFile   = "model.safetensors.index.json"
)

// shardsOf lists the files that an index of shards names.
func shardsOf(index []byte) ([]string, error) {
	var content struct {
		WeightMap map[string]string `json:"weight_map"`
	}
	if err := json.Unmarshal(index, &content); err != nil {
		return nil, err
	}
	seen := make(map[string]bool)
	var shards []string
	for _, shard := range content.WeightMap {
		if !validFile(shard) {
			return nil, fmt.Errorf("it names the shard %.200q, which no folder can hold", shard)
		}
		if !seen[shard] {
			seen[shard] = true
			shards = append(shards, shard)
		}
	}
	return shards, nil
}
