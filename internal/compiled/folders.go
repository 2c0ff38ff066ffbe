package compiled

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/kvqbook/kvqbook/internal/filesys"
	"github.com/kvqbook/kvqbook/internal/trust"
)

// What is kept is machine code, and reading it runs it. So a folder or file counts only where the
// reader, root, or the owner of the plugin could have written it: the plugin's owner can run code
// in this process already. Others are refused, as ssh refuses keys.

// ErrUntrusted is in the chain of an error about a folder that somebody else could have written.
var ErrUntrusted = errors.New("written by somebody else")

// untrusted is an error of one line that errors.Is recognizes as [ErrUntrusted].
type untrusted struct{ text string }

func (e *untrusted) Error() string        { return e.text }
func (e *untrusted) Is(target error) bool { return target == ErrUntrusted }

// check returns an error of one line, with the cure, where somebody who is not one of the owners
// could have written a file or folder.
func check(owners trust.Owners, path string, info fs.FileInfo) error {
	var refused *trust.Error
	err := owners.Check(path, info)
	if !errors.As(err, &refused) {
		return err
	}
	cure := "name a folder of your own in KVQ_COMPILED"
	if refused.Mode {
		cure = "chmod go-w it"
	}
	return &untrusted{fmt.Sprintf("%s: its machine code is not run; %s", refused.Text, cure)}
}

// folders are where graphs are looked for, and where they are kept.
type folders struct {
	read []store
	keep store
}

// open returns the folders for dir, which need not be there yet. plugin is the plugin's file.
//
// Where dir belongs to somebody else who is trusted, as a clone that several people share, it is
// read, and what is new is kept in the reader's own cache folder. The same goes for a dir that is
// not there and cannot be made by the reader. Where dir is not to be trusted,
// the error is one line that says why and what to do.
func open(dir, plugin string) (folders, error) {
	mine := trust.Me()
	trusted := mine.And(0)
	if info, err := os.Stat(plugin); err == nil {
		trusted = trusted.And(trust.OwnerOf(info))
	}
	own := store{dir: dir, limit: limit, owners: trusted}
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist) && trust.Writable(filesys.Nearest(dir)):
		return folders{[]store{own}, own}, nil
	case errors.Is(err, fs.ErrNotExist): // of a clone that somebody else has
	case err != nil:
		return folders{}, err
	}
	if info != nil {
		if err := check(trusted, dir, info); err != nil {
			return folders{}, err
		}
		if mine.Check(dir, info) == nil {
			return folders{[]store{own}, own}, nil
		}
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return folders{}, fmt.Errorf("%s belongs to another user, and there is no folder for one's own: %w", dir, err)
	}
	private := store{dir: filepath.Join(cache, "kvqbook", "compiled"), limit: limit, owners: mine}
	if info, err := os.Stat(private.dir); err == nil {
		if err := check(mine, private.dir, info); err != nil {
			return folders{}, err
		}
	}
	return folders{[]store{own, private}, private}, nil
}

// lookup returns what one of the folders has under name.
func (f folders) lookup(name string) ([]byte, bool) {
	for _, s := range f.read {
		if content, ok := s.read(name); ok {
			return content, true
		}
	}
	return nil, false
}
