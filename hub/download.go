package hub

import (
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/gofrs/flock"

	"github.com/kvqbook/kvqbook/internal/progress"
)

// entry is one file of a commit.
type entry struct {
	name string
	size int64
	// sha256 of the content for files in LFS, else git's: sha1 with a header; hexadecimal
	hash string
}

// hasher makes what entry.hash has to be.
func (e entry) hasher() hash.Hash {
	if len(e.hash) == sha256.Size*2 {
		return sha256.New()
	}
	h := sha1.New()
	fmt.Fprintf(h, "blob %d\x00", e.size)
	return h
}

// checked says whether a hash is one that can be checked, and a name for a file.
func (e entry) checked() bool {
	data, err := hex.DecodeString(e.hash)
	return err == nil && (len(data) == sha256.Size || len(data) == sha1.Size) && e.hash == strings.ToLower(e.hash)
}

// bufferSize is what is read at once; larger ones are not faster.
const bufferSize = 1 << 20

// file puts one file into the snapshot.
func (f *fetcher) file(ctx context.Context, e entry) error {
	if f.cache.has(f.commit, e) {
		return nil
	}
	unlock, err := f.lock(ctx, e)
	if err != nil {
		return err
	}
	defer unlock()
	blob := f.cache.blob(e.hash)
	info, err := os.Stat(blob)
	// of another revision, or made by another process just now
	if err == nil && info.Size() == e.size {
		f.progress.add(e.name, e.size-f.counted(e))
		return f.cache.link(f.commit, e)
	}
	if err := os.MkdirAll(filepath.Dir(blob), 0o755); err != nil {
		return cacheError(f.cache.root, err)
	}
	partial := blob + incomplete
	for second := false; ; second = true {
		err = f.download(ctx, e, partial)
		if err == nil {
			break
		}
		if !errors.Is(err, ErrCorrupt) {
			return err
		}
		if e := os.Remove(partial); e != nil {
			return cacheError(f.cache.root, e)
		}
		if second {
			return err
		}
		f.client.log(e.name + ": wrong hash, fetching it again")
	}
	if err := os.Rename(partial, blob); err != nil {
		return cacheError(f.cache.root, err)
	}
	return f.cache.link(f.commit, e)
}

// incomplete is the end of a partial file's name, as Python has it.
const incomplete = ".incomplete"

// counted is how much of a file the progress began with.
func (f *fetcher) counted(e entry) int64 {
	info, err := os.Stat(f.cache.blob(e.hash) + incomplete)
	if err != nil || info.Size() > e.size || !info.Mode().IsRegular() {
		return 0
	}
	return info.Size()
}

// lock keeps other processes away, Python's too: it locks the same file by the same means. Where
// the file system has no locks, it goes on without: two processes then write the same bytes to the
// same places.
func (f *fetcher) lock(ctx context.Context, e entry) (unlock func(), err error) {
	path := f.cache.lock(e.hash)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, cacheError(f.cache.root, err)
	}
	lock := flock.New(path)
	held, err := lock.TryLock()
	if err == nil && !held {
		f.client.log("another process fetches " + e.name + ": waiting for it")
		_, err = lock.TryLockContext(ctx, 200*time.Millisecond)
	}
	if ctx.Err() != nil {
		_ = lock.Close()
		return nil, context.Cause(ctx)
	}
	var open *fs.PathError
	if errors.As(err, &open) && open.Op == "open" {
		return nil, cacheError(f.cache.root, err)
	}
	return func() { _ = lock.Close() }, nil
}

// transfer is a download under way.
type transfer struct {
	*fetcher
	entry
	file   *os.File
	sum    hash.Hash
	offset int64 // bytes in file and in sum
}

// download completes the partial file and checks it. It goes on where the file ends, and after a
// broken connection. The error is ErrCorrupt when size or hash are wrong.
func (f *fetcher) download(ctx context.Context, e entry, partial string) (err error) {
	file, err := os.OpenFile(partial, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return cacheError(f.cache.root, err)
	}
	defer func() {
		if e := file.Close(); err == nil && e != nil {
			err = cacheError(f.cache.root, e)
		}
	}()
	t := &transfer{fetcher: f, entry: e, file: file, sum: e.hasher()}
	if err := t.resume(ctx); err != nil {
		return err
	}
	// a server that sends the same wrong beginning again and again makes no progress
	best := t.offset
	for failures := 0; t.offset < e.size; {
		err := t.receive(ctx)
		if err == nil {
			continue
		}
		if t.offset > best {
			best, failures = t.offset, 0
		}
		failures++
		if again, err := f.client.again(ctx, err, failures); !again {
			if errors.Is(err, ErrCorrupt) {
				f.progress.add(e.name, -t.offset)
			}
			return err
		}
	}
	if err := file.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) { // not every file system can
		return cacheError(f.cache.root, err)
	}
	info, err := file.Stat()
	if err != nil {
		return cacheError(f.cache.root, err)
	}
	if came := hex.EncodeToString(t.sum.Sum(nil)); came != e.hash || info.Size() != e.size {
		f.progress.add(e.name, -t.offset)
		return fail(ErrCorrupt, nil, "%s of %s came broken twice: hash %s, want %s; it was deleted; try again later, and if it stays so, a proxy in between may change files", e.name, f.id.Repo, came, e.hash)
	}
	return nil
}

// resume reads what is there of the file.
func (t *transfer) resume(ctx context.Context) error {
	info, err := t.file.Stat()
	if err != nil {
		return cacheError(t.cache.root, err)
	}
	if info.Size() > t.size {
		return t.restart()
	}
	buffer := make([]byte, bufferSize)
	for t.offset < info.Size() {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := t.file.ReadAt(buffer[:min(bufferSize, info.Size()-t.offset)], t.offset)
		if n == 0 && err != nil {
			return cacheError(t.cache.root, err)
		}
		t.sum.Write(buffer[:n])
		t.offset += int64(n)
	}
	if t.offset > 0 {
		t.client.log(fmt.Sprintf("%s: going on at %s of %s", t.name, progress.Bytes(t.offset), progress.Bytes(t.size)))
	}
	return nil
}

// restart forgets what is there of the file.
func (t *transfer) restart() error {
	t.progress.add(t.name, -t.offset)
	t.offset = 0
	t.sum = t.hasher()
	if err := t.file.Truncate(0); err != nil {
		return cacheError(t.cache.root, err)
	}
	return nil
}

// receive asks for the rest of the file once, and keeps what comes.
//
// It sends no If-Range: the file of a hash cannot change, the ETag of the storage that serves it is
// not the hub's and differs from one server of it to the next, and the hash is checked at the end.
func (t *transfer) receive(ctx context.Context) error {
	w := t.client.watch(ctx)
	defer w.end()
	header := http.Header{}
	if t.offset > 0 {
		header.Set("Range", fmt.Sprintf("bytes=%d-", t.offset))
	}
	about := subject{t.id.Repo, t.commit, t.name}
	resp, _, err := t.client.do(w, http.MethodGet, t.client.fileURL(t.id.Repo, t.commit, t.name), header, about)
	if errors.Is(err, errRange) {
		if err := t.restart(); err != nil {
			return err
		}
		return &temporary{fail(ErrServer, nil, "%s: the rest of %s cannot be had", t.client.origin.Host, t.name), 0}
	}
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	host := resp.Request.URL.Host
	if resp.StatusCode != http.StatusPartialContent {
		if t.offset > 0 { // the server knows no ranges
			if err := t.restart(); err != nil {
				return err
			}
		}
	} else if start, total := contentRange(resp.Header); start != t.offset || total >= 0 && total != t.size {
		return fail(ErrServer, nil, "%s: asked for %s from byte %d of %d, came %q; try again later", host, t.name, t.offset, t.size, resp.Header.Get("Content-Range"))
	}
	buffer := make([]byte, bufferSize)
	for {
		n, readErr := w.read(resp.Body, buffer)
		if int64(n) > t.size-t.offset {
			return fail(ErrCorrupt, nil, "%s of %s: more than the %d bytes that the hub announced; try again later", t.name, t.id.Repo, t.size)
		}
		if n > 0 {
			if _, err := t.file.WriteAt(buffer[:n], t.offset); err != nil {
				return cacheError(t.cache.root, err)
			}
			t.sum.Write(buffer[:n])
			t.offset += int64(n)
			t.progress.add(t.name, int64(n))
		}
		switch {
		case readErr == nil:
		case t.offset == t.size:
			return nil
		case readErr == io.EOF:
			return t.client.networkError(w, host, io.ErrUnexpectedEOF)
		default:
			return t.client.networkError(w, host, readErr)
		}
	}
}

// contentRange reads "bytes 5-9/10" as 5 and 10; -1 for what it does not say.
func contentRange(h http.Header) (start, total int64) {
	span, ok := strings.CutPrefix(h.Get("Content-Range"), "bytes ")
	first, _, ok2 := strings.Cut(span, "-")
	start, err := strconv.ParseInt(first, 10, 64)
	if !ok || !ok2 || err != nil {
		return -1, -1
	}
	_, size, _ := strings.Cut(span, "/")
	if total, err = strconv.ParseInt(size, 10, 64); err != nil {
		total = -1
	}
	return start, total
}
