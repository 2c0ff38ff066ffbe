package hub

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	gohub "github.com/gomlx/go-huggingface/hub"
	"golang.org/x/sync/errgroup"

	"github.com/kvqbook/kvqbook/internal/progress"
)

// Options of Fetch. The zero value is what most want.
type Options struct {
	Revision string // a branch, a tag or a commit; "": that of the id, else main
	// use what is in the cache, and ask nobody; $HF_HUB_OFFLINE=1 sets it too
	Offline  bool
	Endpoint string // "": $HF_ENDPOINT, else https://huggingface.co
	CacheDir string // "": CacheDir()
	// called as bytes come, one call at a time; nil: nobody wants to know
	Progress func(Progress)
	// told what is worth a line, such as an attempt that failed; nil as above
	Log func(line string)
}

// defaultRevision is the hub's name of what is newest.
const defaultRevision = "main"

// parallel is how many files are fetched at once: more are not faster, and more is lost of each
// when it is cut off.
const parallel = 3

// Fetch makes sure that a model is in the cache folder, and returns the folder that holds its
// files, for llama.Open: its configuration, its tokenizer, and its weights as safetensors. An id
// that names a file ("org/name/model.gguf") fetches that one, and Fetch returns its path.
//
// It asks the hub what the revision is at the moment, unless that is a commit which is there
// already. When the hub cannot be reached or fails, what is in the cache does. Fetch ends at once
// when ctx is done, with the cause of that; what came so far is kept, and the next Fetch goes on
// from it. Several processes may fetch the same model.
func Fetch(ctx context.Context, id string, o Options) (string, error) {
	parsed, err := ParseID(id)
	if err != nil {
		return "", err
	}
	switch {
	case o.Revision == "":
	case !validRevision(o.Revision):
		return "", fail(ErrID, nil, "revision %q: want a branch, a tag or a commit", o.Revision)
	case parsed.Revision != "" && parsed.Revision != o.Revision:
		return "", fail(ErrID, nil, "model %q with revision %q: two revisions, want one", id, o.Revision)
	default:
		parsed.Revision = o.Revision
	}
	if parsed.Revision == "" {
		parsed.Revision = defaultRevision
	}
	if o.CacheDir, err = cacheDir(o.CacheDir); err != nil {
		return "", err
	}
	f := &fetcher{id: parsed, cache: newCache(o.CacheDir, parsed.Repo)}
	if o.Offline || OfflineVariable() != "" {
		return f.cached()
	}
	if commitName.MatchString(parsed.Revision) && f.cache.missing(parsed.Revision, parsed, true) == "" {
		return f.path(parsed.Revision), nil
	}
	t, err := findToken()
	if err != nil {
		return "", err
	}
	if f.client, err = newClient(o, t); err != nil {
		return "", err
	}
	defer f.client.close()
	info, err := f.client.info(ctx, parsed.Repo, parsed.Revision)
	if err != nil {
		if errors.Is(err, ErrNetwork) || errors.Is(err, ErrServer) {
			if path, e := f.cached(); e == nil {
				f.client.log(fmt.Sprintf("%s: using what is in the cache", short(err)))
				return path, nil
			}
		}
		return "", err
	}
	f.commit, f.progress.report = info.Commit, o.Progress
	if err := f.fetch(ctx, info); err != nil {
		return "", err
	}
	return f.path(f.commit), f.cache.setCommit(parsed.Revision, f.commit)
}

// fetcher fetches one commit of one model.
type fetcher struct {
	id       ID
	cache    cache
	commit   string
	client   *client
	progress tracker
}

// path is what Fetch returns.
func (f *fetcher) path(commit string) string {
	if f.id.File != "" {
		return f.cache.pointer(commit, f.id.File)
	}
	return f.cache.snapshot(commit)
}

// cached is what Fetch returns without asking the hub.
func (f *fetcher) cached() (string, error) {
	commit, id := f.cache.commit(f.id.Revision), f.id
	if id.Revision == defaultRevision {
		id.Revision = "" // nobody said it
	}
	if commit == "" {
		return "", fail(ErrOffline, nil, "offline, and %s is not in the cache folder %s; fetch it once with a network: kvq download %s", id, f.cache.root, id)
	}
	if missing := f.cache.missing(commit, f.id, false); missing != "" {
		return "", fail(ErrOffline, nil, "offline, and of %s in the cache folder %s %s is missing; fetch it once with a network: kvq download %s", id, f.cache.root, missing, id)
	}
	return f.path(commit), nil
}

// fetch downloads what is missing: first the small files that tell what else is needed, and whether
// access is granted.
func (f *fetcher) fetch(ctx context.Context, info *repoInfo) error {
	if f.id.File != "" {
		e, err := f.entry(ctx, info, f.id.File)
		if err != nil {
			return err
		}
		return f.all(ctx, []entry{e})
	}
	var gguf []string
	for _, file := range info.Files {
		if path.Ext(file.Name) == ".gguf" {
			gguf = append(gguf, file.Name)
		}
	}
	if find(info, configFile) == nil || find(info, indexFile) == nil && find(info, weightsFile) == nil {
		hint := "want another model, or a conversion of this one"
		if len(gguf) > 0 {
			hint = fmt.Sprintf("it has %d GGUF files: name one of them, such as %s/%s", len(gguf), f.id.Repo, gguf[0])
		}
		return fail(ErrNoFile, nil, "%s has no %s with weights as safetensors; %s", f.id.Repo, configFile, hint)
	}
	weights := []string{weightsFile}
	for _, name := range []string{configFile, indexFile} {
		if find(info, name) == nil {
			continue
		}
		e, err := f.entry(ctx, info, name)
		if err == nil {
			err = f.file(ctx, e)
		}
		if err != nil {
			return err
		}
	}
	if find(info, indexFile) != nil {
		data, err := os.ReadFile(f.cache.pointer(f.commit, indexFile))
		if err != nil {
			return cacheError(f.cache.root, err)
		}
		if weights, err = shardsOf(data); err != nil {
			return fail(ErrNoFile, err, "%s: %s is no index of shards: %v", f.id.Repo, indexFile, err)
		}
		slices.Sort(weights)
	}
	var entries []entry
	for _, file := range info.Files {
		if small(file.Name) {
			e, err := f.entry(ctx, info, file.Name)
			if err != nil {
				return err
			}
			entries = append(entries, e)
		}
	}
	for _, name := range weights {
		e, err := f.entry(ctx, info, name)
		if err != nil {
			return err
		}
		entries = append(entries, e)
	}
	return f.all(ctx, entries)
}

// small says that a file beside the weights is needed: of the tokenizer, or settings of the
// generation.
func small(name string) bool {
	switch name {
	case "generation_config.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja":
		return true
	}
	return strings.HasPrefix(name, "tokenizer") && strings.HasSuffix(name, ".json") && !strings.Contains(name, "/")
}

func find(info *repoInfo, name string) *gohub.FileInfo {
	for _, file := range info.Files {
		if file.Name == name {
			return file
		}
	}
	return nil
}

// entry is what the hub says about a file. Where the list of files is silent about size and hash,
// as on some mirrors, the headers of the file tell.
func (f *fetcher) entry(ctx context.Context, info *repoInfo, name string) (entry, error) {
	if !validFile(name) {
		return entry{}, fail(ErrServer, nil, "%s: it lists a file %.200q of %s, which no folder can hold; is HF_ENDPOINT a hub?", f.client.origin.Host, name, f.id.Repo)
	}
	file := find(info, name)
	if file == nil {
		return entry{}, fail(ErrNoFile, nil, "%s has no file %s at revision %s", f.id.Repo, name, f.id.Revision)
	}
	e := entry{name: name, size: file.Size, hash: file.BlobID}
	if file.LFS != nil {
		e.size, e.hash = file.LFS.Size, file.LFS.SHA256
	}
	if e.hash == "" {
		if err := f.head(ctx, &e); err != nil {
			return e, err
		}
	}
	if !e.checked() || e.size < 0 {
		return e, fail(ErrServer, nil, "%s: no hash of %s by which to check it; is HF_ENDPOINT a hub?", f.client.origin.Host, name)
	}
	return e, nil
}

func (f *fetcher) head(ctx context.Context, e *entry) error {
	return f.client.retry(ctx, func() error {
		w := f.client.watch(ctx)
		defer w.end()
		resp, first, err := f.client.do(w, http.MethodHead, f.client.fileURL(f.id.Repo, f.commit, e.name), nil, subject{f.id.Repo, f.commit, e.name})
		if err != nil {
			return err
		}
		resp.Body.Close()
		e.size = resp.ContentLength
		if size, err := strconv.ParseInt(first.Get(gohub.HeaderXLinkedSize), 10, 64); err == nil {
			e.size = size
		}
		tag := first.Get(gohub.HeaderXLinkedETag)
		if tag == "" {
			tag = first.Get("ETag")
		}
		e.hash = strings.Trim(strings.TrimPrefix(tag, "W/"), `"`)
		return nil
	})
}

// all fetches files, a few at a time.
func (f *fetcher) all(ctx context.Context, entries []entry) error {
	var total, here, need int64
	for _, e := range entries {
		if f.cache.has(f.commit, e) {
			continue
		}
		part := f.counted(e)
		total, here, need = total+e.size, here+part, need+e.size-part
	}
	if err := f.room(need); err != nil {
		return err
	}
	f.progress.begin(here, total)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for _, e := range entries {
		group.Go(func() error {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return f.file(ctx, e)
		})
	}
	return group.Wait()
}

// room refuses what the disk cannot hold, before hours of download.
func (f *fetcher) room(need int64) error {
	dir := f.cache.root
	for {
		if _, err := os.Stat(dir); err == nil || filepath.Dir(dir) == dir {
			break
		}
		dir = filepath.Dir(dir)
	}
	free, known := freeBytes(dir)
	if !known || need <= free {
		return nil
	}
	return fail(ErrDiskFull, nil, "%s needs %s on the disk of the cache folder %s, which has %s left; make room, or set HF_HUB_CACHE to a folder on another disk",
		f.id.Repo, progress.Bytes(need), f.cache.root, progress.Bytes(free))
}
