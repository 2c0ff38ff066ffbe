//go:build unix

package compiled

import (
	"io/fs"
	"slices"
	"syscall"
)

// owners are numbers of users.
type owners []int

// and adds a user.
func (o owners) and(user int) owners { return append(slices.Clone(o), user) }

// ownerOf returns the number of a file's owner.
func ownerOf(info fs.FileInfo) int { return int(info.Sys().(*syscall.Stat_t).Uid) }

// writableByOthers are the bits of a mode that let a group or everybody write.
const writableByOthers = 0o022

// trust returns an error of one line where somebody who is not one of the owners could have written
// a file or folder.
func (o owners) trust(path string, info fs.FileInfo) error {
	if user := ownerOf(info); !slices.Contains(o, user) {
		return untrustedf("%s belongs to user %d: its machine code is not run; name a folder of your own in KVQ_COMPILED", path, user)
	}
	if mode := info.Mode().Perm(); mode&writableByOthers != 0 {
		return untrustedf("%s can be written by others (mode %04o): its machine code is not run; chmod go-w it", path, mode)
	}
	return nil
}
