package buildcache

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/kvqbook/kvqbook/internal/filesys"
)

// layer is a folder in the layout of Go's build cache: 256 folders by the first byte of an id; an
// action in ID-a, in one line the output, its size and when it was made; an output in ID-d. The
// empty layer has nothing.
type layer struct{ dir string }

// entry is an action's output.
type entry struct {
	output []byte
	size   int64
	at     time.Time
	path   string
}

const (
	idSize   = sha256.Size
	anEntry  = "v1 %x %x %20d %20d\n"
	keptFor  = 5 * 24 * time.Hour // as Go keeps what is not used
	trimmed  = "trim-own.txt"     // its age is the time since files were removed
	markedIn = time.Hour          // a use is marked once an hour, as Go does
)

func (l layer) path(id []byte, kind string) string {
	return filepath.Join(l.dir, fmt.Sprintf("%02x", id[0]), fmt.Sprintf("%x-%s", id, kind))
}

// get returns an action's output, and false where there is none or not all of it.
func (l layer) get(action []byte) (entry, bool) {
	if l.dir == "" || len(action) != idSize {
		return entry{}, false
	}
	text, err := os.ReadFile(l.path(action, "a"))
	if err != nil {
		return entry{}, false
	}
	var e entry
	var id []byte
	var nanos int64
	if n, err := fmt.Sscanf(string(text), anEntry, &id, &e.output, &e.size, &nanos); n != 4 || err != nil || string(id) != string(action) || len(e.output) != idSize {
		return entry{}, false
	}
	e.at, e.path = time.Unix(0, nanos), l.path(e.output, "d")
	info, err := os.Stat(e.path)
	if err != nil || !info.Mode().IsRegular() || info.Size() != e.size {
		return entry{}, false
	}
	for _, path := range []string{l.path(action, "a"), e.path} {
		if time.Since(info.ModTime()) > markedIn {
			now := time.Now()
			_ = os.Chtimes(path, now, now) // a shared one is not ours to mark
		}
	}
	return e, true
}

// put keeps an action's output, and returns the path of its file. What another process puts at the
// same time is the same.
func (l layer) put(action, output, body []byte) (string, error) {
	if len(action) != idSize || len(output) != idSize {
		return "", fmt.Errorf("wanted ids of %d bytes, came %d and %d", idSize, len(action), len(output))
	}
	if sum := sha256.Sum256(body); string(sum[:]) != string(output) {
		return "", fmt.Errorf("the body is not the output %x", output)
	}
	path := l.path(output, "d")
	if err := l.write(path, body); err != nil {
		return "", err
	}
	text := fmt.Sprintf(anEntry, action, output, len(body), time.Now().UnixNano())
	return path, l.write(l.path(action, "a"), []byte(text))
}

// write writes a file of the layer at once.
func (l layer) write(path string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return filesys.Write(path, content)
}

// trim removes, once a day, what was not used for long.
func (l layer) trim(now time.Time) {
	mark := filepath.Join(l.dir, trimmed)
	if info, err := os.Stat(mark); err == nil && now.Sub(info.ModTime()) < 24*time.Hour {
		return
	}
	if os.WriteFile(mark, nil, 0o644) != nil || os.Chtimes(mark, now, now) != nil {
		return
	}
	paths, _ := filepath.Glob(filepath.Join(l.dir, "[0-9a-f][0-9a-f]", "*"))
	for _, path := range paths {
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && now.Sub(info.ModTime()) > keptFor {
			os.Remove(path)
		}
	}
}
