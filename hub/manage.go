package hub

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Stored is a model in the cache folder.
type Stored struct {
	Repo    string // "org/name"
	Bytes   int64  // of all its files, parts of downloads included
	Partial int64  // of these, bytes of downloads that were cut off
	// a revision is there whole, with a configuration and weights that Fetch would ask for
	Complete bool
}

// List returns the models in a cache folder ("" for CacheDir()), by name. A folder that is not
// there holds none.
func List(dir string) ([]Stored, error) {
	dir, err := cacheDir(dir)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, fail(ErrCache, err, "the cache folder %s cannot be read: %v", dir, err)
	}
	var list []Stored
	for _, e := range entries {
		repo, ok := repoOfFolder(e.Name())
		if !ok || !e.IsDir() {
			continue
		}
		s, err := newCache(dir, repo).stored(repo)
		if err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b Stored) int { return strings.Compare(a.Repo, b.Repo) })
	return list, nil
}

// Remove takes a model out of a cache folder ("" for CacheDir()), all of its revisions, and returns
// what it was. The error is ErrNoModel where it is not there.
func Remove(id, dir string) (Stored, error) {
	parsed, err := ParseID(id)
	if err != nil {
		return Stored{}, err
	}
	if parsed.File != "" || parsed.Revision != "" {
		return Stored{}, fail(ErrID, nil, "model %.200q: want its name alone; it is removed whole, such as %s", id, parsed.Repo)
	}
	if dir, err = cacheDir(dir); err != nil {
		return Stored{}, err
	}
	c := newCache(dir, parsed.Repo)
	if _, err := os.Stat(filepath.Join(dir, c.name)); err != nil {
		return Stored{}, fail(ErrNoModel, err, "%s is not in the cache folder %s; kvq list names what is", parsed.Repo, dir)
	}
	s, err := c.stored(parsed.Repo)
	if err != nil {
		return s, err
	}
	// A name that no tool takes for a model comes first, so that half a removal is not half a
	// model.
	gone, err := os.MkdirTemp(dir, ".removed-*")
	if err != nil {
		return s, cacheError(dir, err)
	}
	if err := os.Rename(filepath.Join(dir, c.name), filepath.Join(gone, c.name)); err != nil {
		os.Remove(gone)
		return s, cacheError(dir, err)
	}
	if err := errors.Join(os.RemoveAll(gone), os.RemoveAll(filepath.Join(dir, ".locks", c.name))); err != nil {
		return s, cacheError(dir, err)
	}
	return s, nil
}

// cacheDir is dir, or CacheDir for none.
func cacheDir(dir string) (string, error) {
	if dir == "" {
		return CacheDir()
	}
	return dir, nil
}

// stored looks at what is there of a model.
func (c cache) stored(repo string) (Stored, error) {
	s := Stored{Repo: repo}
	err := filepath.WalkDir(filepath.Join(c.root, c.name), func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() { // snapshots link to blobs
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		s.Bytes += info.Size()
		if strings.HasSuffix(path, ".incomplete") {
			s.Partial += info.Size()
		}
		return nil
	})
	if err != nil {
		return s, fail(ErrCache, err, "the cache folder %s cannot be read: %v", c.root, err)
	}
	commits, err := os.ReadDir(filepath.Join(c.root, c.name, "snapshots"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return s, fail(ErrCache, err, "the cache folder %s cannot be read: %v", c.root, err)
	}
	for _, commit := range commits {
		ids := []ID{{Repo: repo}}
		for _, gguf := range globs(c.snapshot(commit.Name()), "*.gguf") {
			ids = append(ids, ID{Repo: repo, File: gguf})
		}
		for _, id := range ids {
			s.Complete = s.Complete || c.missing(commit.Name(), id, true) == ""
		}
	}
	return s, nil
}

// globs are the names in a folder that match a pattern.
func globs(dir, pattern string) []string {
	paths, _ := filepath.Glob(filepath.Join(dir, pattern)) // only fails for a bad pattern
	for i := range paths {
		paths[i] = filepath.Base(paths[i])
	}
	return paths
}
