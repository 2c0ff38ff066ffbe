package compiled

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/kvqbook/kvqbook/internal/trust"
)

// Kept is what a folder keeps, for people who ask.
type Kept struct {
	Dir   string // where graphs are kept: the folder asked for, or the reader's own beside a shared one
	Files int    // graphs, those of a shared folder included
	Bytes int64  // of them
	Owner int    // the number of Dir's owner, -1 where it is not there yet
}

// Look says what the folder dir keeps, without changing it. plugin is the plugin's file. A folder
// that [Table] would refuse is the same error.
func Look(dir, plugin string) (Kept, error) {
	f, err := open(dir, plugin)
	if err != nil {
		return Kept{Dir: dir}, err
	}
	k := Kept{Dir: f.keep.dir, Owner: -1}
	if info, err := os.Stat(k.Dir); err == nil {
		k.Owner = trust.OwnerOf(info)
	}
	for _, s := range f.read {
		entries, err := os.ReadDir(s.dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return k, err
		}
		for _, e := range entries {
			if info, err := e.Info(); err == nil && info.Mode().IsRegular() && filepath.Ext(e.Name()) == suffix {
				k.Files, k.Bytes = k.Files+1, k.Bytes+info.Size()
			}
		}
	}
	return k, nil
}
