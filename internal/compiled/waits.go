package compiled

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kvqbook/kvqbook/internal/stage"
)

// Waits remembers in the folder of compiled graphs how long their users waited for them, to tell
// them beforehand the next time. Where no graphs are kept it remembers nothing. What cannot be read
// or written is as if it were not there: nothing depends on it. Safe for concurrent use; of two
// processes that write at the same time one is remembered.
type Waits struct{}

const (
	waitsName = "waits" // a file with a digest in front, as graphs have
	mostWaits = 256     // graphs; the oldest are forgotten first
	mostWait  = 24 * time.Hour
)

func init() { stage.Machine = Waits{} }

// waitsIn are the folders, once a plugin has a table.
var waitsIn atomic.Pointer[folders]

// waitsLock keeps two goroutines from forgetting what the other writes.
var waitsLock sync.Mutex

// wait is what is remembered of one graph.
type wait struct {
	Seconds float64 `json:"s"`
	At      int64   `json:"at"` // of the Unix clock
}

// Last is how long the last wait with this key was.
func (Waits) Last(key string) (time.Duration, bool) {
	in := waitsIn.Load()
	if in == nil {
		return 0, false
	}
	w, ok := readWaits(*in)[waitKey(key)]
	d := time.Duration(w.Seconds * float64(time.Second))
	return d, ok && d > 0 && d < mostWait
}

// Took remembers a wait.
func (Waits) Took(key string, d time.Duration) {
	in := waitsIn.Load()
	if in == nil || d <= 0 || d >= mostWait {
		return
	}
	waitsLock.Lock()
	defer waitsLock.Unlock()
	all := readWaits(*in)
	all[waitKey(key)] = wait{d.Seconds(), time.Now().Unix()}
	for len(all) > mostWaits {
		oldest, at := "", int64(0)
		for name, w := range all {
			if oldest == "" || w.At < at || w.At == at && name < oldest {
				oldest, at = name, w.At
			}
		}
		delete(all, oldest)
	}
	if content, err := json.Marshal(all); err == nil {
		_ = in.keep.write(waitsName, content) // forgotten then
	}
}

// readWaits is what the folders remember, never nil. The reader's own folder comes last and wins.
func readWaits(in folders) map[string]wait {
	all := map[string]wait{}
	for _, s := range in.read {
		content, ok := s.read(waitsName)
		if !ok {
			continue
		}
		var more map[string]wait
		if json.Unmarshal(content, &more) != nil || len(more) > mostWaits {
			continue
		}
		maps.Copy(all, more)
	}
	return all
}

// waitKey is a short name for a key.
func waitKey(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:8])
}
